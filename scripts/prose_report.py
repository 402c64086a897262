#!/usr/bin/env python3
"""Report how the project reads: dialect per 10,000 words, documented functions, sizes.

`tests/house/test_prose.py` holds the figures to their limits. Run it without arguments; the exit code is 1 if a limit
is exceeded. `--list` prints every place of every marker.
"""

import math
import re
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.source_texts import (
    Function,
    Text,
    code_prose,
    documents,
    functions,
    is_test,
    line_count,
    messages,
    names_of_tests,
    other_comments,
    relative,
    sources,
    tracked_files,
)

MARKERS = {
    "where meaning if": r"\b[Ww]here\s+(?:it|there|the)\b",
    "so long, so many": r"\b[Ss]o\s+(?:long|many|often)\b(?!\s+(?:as|that)\b)",
    "told": r"\b(?:[Tt]old|[Tt]ells?)\b",
    # At the start of a clause ("Who waits is woken") or behind a preposition ("for who waits"); not in a question, and
    # not in "anybody who" or "a client, who".
    "who as a noun": r"(?:\A|[.:;]\s+|\n\n\s*)[Ww]ho\b(?![^.;]{0,120}\?)"
    r"|\b[Ww]hoever\b|\b(?:for|to|by|of|from|than)\s+who\b",
    "he for a process": r"\b(?:[Hh]e|[Hh]im|[Hh]is|[Hh]imself)\b",
}
"""Regular expressions of the first release's private dialect, by name."""

WATCHED = {
    "where, otherwise": r"\b[Ww]here\s+(?:an?|no|nothing|nobody|one|that|they|what|this|some|all)\b",
    "so much, so few": r"\b[Ss]o\s+(?:much|few)\b",
    "stand, lie, look": r"\b(?:stands?|lies|looks?|looked)\b",
    "say, ask, want": r"\b(?:says?|said|asks?|asked|wants?|wanted)\b",
    "come": r"\b(?:comes?|came)\b",
    "of its own, but for": r"\bof (?:its|one's|their|our) own\b|\b(?:but for|by itself|by themselves|even so)\b",
}
"""Further habits of that dialect, which are also plain English at times: counted and listed, without a limit."""

PER_10_000_WORDS_MAX = 3.0

DOCUMENTED_SHARE_MIN = 0.5
ARGUMENTS_DOCUMENTED_FROM = 3

FUNCTION_LINES_MEDIAN_MAX = 6
FUNCTION_LINES_P90_MAX = 19
FILE_LINES_MAX = 300


def occurrences(texts: list[Text], markers: dict[str, str] = MARKERS) -> dict[str, list[str]]:
    """Return the places of each marker, as `file:line: excerpt`."""
    return {
        name: [
            f"{text.path}:{text.line + text.text[: found.start()].count(chr(10))}: {_excerpt(text.text, found)}"
            for text in texts
            for found in re.finditer(pattern, text.text)
        ]
        for name, pattern in markers.items()
    }


def words(texts: list[Text]) -> int:
    """Return the number of words."""
    return sum(len(re.findall(r"[A-Za-z][A-Za-z'-]*", text.text)) for text in texts)


def corpora() -> dict[str, list[Text]]:
    """Return the prose of the project by kind."""
    program = sources()
    tests = [path for path in tracked_files("*.py") if is_test(path)]
    return {
        "code prose": [*code_prose(program), *other_comments()],
        "messages": messages(program),
        "documents": documents(),
        "tests": [*code_prose(tests), *messages(tests), *names_of_tests(tests)],
    }


def exceeded() -> list[str]:
    """Return a sentence for each limit that does not hold."""
    found = []
    for kind, texts in corpora().items():
        count = words(texts)
        for name, places in occurrences(texts).items():
            if (rate := 10_000 * len(places) / count) >= PER_10_000_WORDS_MAX:
                found.append(f"{kind}: {name!r} occurs {rate:.1f} times per 10,000 words; first: {places[:3]}")
    share, _ = documented_share()
    if share < DOCUMENTED_SHARE_MIN:
        found.append(f"only {share:.0%} of public functions with 3 arguments or more document them")
    lines = [function.body_lines for function in functions(sources())]
    if statistics.median(lines) > FUNCTION_LINES_MEDIAN_MAX:
        found.append(f"the median function has {statistics.median(lines)} lines")
    if percentile_90(lines) > FUNCTION_LINES_P90_MAX:
        found.append(f"one function in ten has more than {percentile_90(lines)} lines")
    found += [
        f"{relative(path)} has {line_count(path)} lines" for path in sources() if line_count(path) > FILE_LINES_MAX
    ]
    return found


def documented_share() -> tuple[float, list[Function]]:
    """Return the share of documented functions among public ones with many arguments, and those that are not."""
    many = [
        function
        for function in functions(sources())
        if function.is_public and function.arguments >= ARGUMENTS_DOCUMENTED_FROM
    ]
    missing = [function for function in many if not function.is_documented]
    return 1 - len(missing) / len(many), missing


def percentile_90(values: list[int]) -> int:
    """Return the 90th percentile, by nearest rank."""
    return sorted(values)[math.ceil(0.9 * len(values)) - 1]


def _excerpt(text: str, found: re.Match[str]) -> str:
    return " ".join(text[max(0, found.start() - 30) : found.end() + 30].split())


def main() -> None:
    """Print the report."""
    is_listing = "--list" in sys.argv
    for kind, texts in corpora().items():
        count = words(texts)
        print(f"\n{kind}: {count:,} words; occurrences, and per 10,000 words")
        for name, places in occurrences(texts, MARKERS | WATCHED).items():
            print(f"  {name:20} {len(places):5} {10_000 * len(places) / count:7.1f}")
            if is_listing:
                print("".join(f"      {place}\n" for place in places), end="")
    share, missing = documented_share()
    print(f"\npublic functions with 3 arguments or more that document arguments, results and errors: {share:.0%}")
    if is_listing:
        print("".join(f"      {one.path}:{one.line}: {one.name}\n" for one in missing), end="")
    lines = [function.body_lines for function in functions(sources())]
    largest = max(sources(), key=line_count)
    print(
        f"lines of a function: median {statistics.median(lines):g}, 90th percentile {percentile_90(lines)}, "
        f"most {max(lines)}"
    )
    print(f"largest file: {relative(largest)}, {line_count(largest)} lines")
    if problems := exceeded():
        print("\nExceeded:", *problems, sep="\n  ")
        sys.exit(1)


if __name__ == "__main__":
    main()
