#!/usr/bin/env python3
"""Report how the project reads: dialect markers per 10,000 words, docstring coverage, file and function sizes.

`tests/house/test_prose.py` holds the figures to their limits. Run it without arguments; exit code 1 if a limit is
exceeded. `--list` prints every place of every marker.
"""

import ast
import io
import re
import statistics
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[1]

MARKERS = {
    "where meaning if": r"\bwhere (?:it|there|the)\b",
    "so long, so many": r"\bso (?:long|many|often)\b(?! as\b)",
    "told": r"\b(?:told|tells?)\b",
    "who as a noun": r"(?:(?<=[.:;(] )|(?<=\n\n)|^)(?:Who|who|Whoever|whoever)\b(?![^.;\n]*\?)|\bwhoever\b"
    r"|\b(?:for|to|by|of|from|than) who\b",
    "he for a process": r"\b(?:he|him|his|himself)\b",
}
"""Regular expressions of the first release's private dialect, by name."""

PER_10_000_WORDS_MAX = 3.0

DOCUMENTED_SHARE_MIN = 0.5
ARGUMENTS_DOCUMENTED_FROM = 3

FUNCTION_LINES_MEDIAN_MAX = 6
FUNCTION_LINES_P90_MAX = 19
FILE_LINES_MAX = 300


class Text(NamedTuple):
    """A piece of prose and where it is."""

    path: str
    line: int
    text: str


class Function(NamedTuple):
    """A function: its name, place, lines of body, arguments, and whether its docstring is complete."""

    path: str
    line: int
    name: str
    body_lines: int
    arguments: int
    is_public: bool
    is_documented: bool


def tracked_files(*patterns: str) -> list[Path]:
    """Return the files of the repository that git tracks or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    return [REPOSITORY / name for name in sorted(set(listed.splitlines())) if (REPOSITORY / name).exists()]


def sources() -> list[Path]:
    """Return the Python files of the program, without its tests."""
    return [path for path in tracked_files("*.py") if not _is_test(path)]


def code_prose(paths: list[Path]) -> list[Text]:
    """Return every docstring and every comment; consecutive comment lines are one text."""
    return [text for path in paths for text in (*_docstrings(path), *_comments(path))]


def messages(paths: list[Path]) -> list[Text]:
    """Return every other string literal of at least three words: messages, help texts, SQL with its comments."""
    found = []
    for path in paths:
        tree = ast.parse(path.read_text())
        docstrings = {id(node) for node in _docstring_nodes(tree)}
        literals = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docstrings]
        found += [
            Text(_relative(path), node.lineno, node.value)
            for node in literals
            if isinstance(node.value, str) and len(node.value.split()) >= 3
        ]
    return found


def documents() -> list[Text]:
    """Return every Markdown document, paragraph by paragraph."""
    found = []
    for path in tracked_files("*.md"):
        line = 1
        for paragraph in path.read_text().split("\n\n"):
            found.append(Text(_relative(path), line, paragraph))
            line += paragraph.count("\n") + 2
    return found


def functions(paths: list[Path]) -> list[Function]:
    """Return every function and method, nested ones included."""
    found = []
    for path in paths:
        tree = ast.parse(path.read_text())
        parents = {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}
        found += [
            _function(path, node, parents)
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
    return found


def occurrences(texts: list[Text]) -> dict[str, list[str]]:
    """Return where each marker occurs, as `file:line: excerpt`."""
    return {
        name: [
            f"{text.path}:{text.line + text.text[: found.start()].count(chr(10))}: {_excerpt(text.text, found)}"
            for text in texts
            for found in re.finditer(pattern, text.text)
        ]
        for name, pattern in MARKERS.items()
    }


def words(texts: list[Text]) -> int:
    """Return the number of words."""
    return sum(len(re.findall(r"[A-Za-z][A-Za-z'-]*", text.text)) for text in texts)


def corpora() -> dict[str, list[Text]]:
    """Return the prose of the project by kind."""
    program = sources()
    tests = [path for path in tracked_files("*.py") if _is_test(path)]
    return {
        "code prose": code_prose(program),
        "messages": messages(program),
        "documents": documents(),
        "tests": [*code_prose(tests), *messages(tests)],
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
    found += [f"{_relative(path)} has {_lines(path)} lines" for path in sources() if _lines(path) > FILE_LINES_MAX]
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
    return sorted(values)[int(0.9 * len(values))]


def _is_test(path: Path) -> bool:
    return path.relative_to(REPOSITORY).parts[0] == "tests"


def _relative(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def _excerpt(text: str, found: re.Match[str]) -> str:
    return " ".join(text[max(0, found.start() - 30) : found.end() + 30].split())


def _docstring_nodes(tree: ast.AST) -> Iterator[ast.Constant]:
    """Yield docstrings, and the strings below constants and fields that document them."""
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str()) as text):
                yield text


def _docstrings(path: Path) -> list[Text]:
    nodes = _docstring_nodes(ast.parse(path.read_text()))
    return [Text(_relative(path), node.lineno, str(node.value)) for node in nodes]


def _comments(path: Path) -> list[Text]:
    found: list[Text] = []
    last = 0
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type != tokenize.COMMENT:
            continue
        text, line = token.string.lstrip("# "), token.start[0]
        if found and line == last + 1:
            found[-1] = Text(found[-1].path, found[-1].line, f"{found[-1].text}\n{text}")
        else:
            found.append(Text(_relative(path), line, text))
        last = line
    return found


def _function(path: Path, node: ast.FunctionDef | ast.AsyncFunctionDef, parents: dict[ast.AST, ast.AST]) -> Function:
    names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    arguments = [name for name in names if name not in ("self", "cls")]
    docstring = ast.get_docstring(node) or ""
    body = node.body[1:] if docstring else node.body
    lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
    holder = parents[node]
    is_public = not node.name.startswith("_") and isinstance(holder, ast.Module | ast.ClassDef)
    if isinstance(holder, ast.ClassDef) and holder.name.startswith("_"):
        is_public = False
    is_public = is_public or (node.name == "__init__" and not getattr(holder, "name", "_").startswith("_"))
    returns = not (isinstance(node.returns, ast.Constant) and node.returns.value is None)
    raises = any(isinstance(inner, ast.Raise) and inner.exc is not None for inner in ast.walk(node))
    is_documented = (
        "Args:" in docstring
        and (not returns or bool(re.search(r"Returns:|Yields:", docstring)))
        and (not raises or "Raises:" in docstring)
    )
    return Function(_relative(path), node.lineno, node.name, lines, len(arguments), is_public, is_documented)


def main() -> None:
    """Print the report."""
    is_listing = "--list" in sys.argv
    for kind, texts in corpora().items():
        count = words(texts)
        print(f"\n{kind}: {count:,} words; occurrences, and per 10,000 words")
        for name, places in occurrences(texts).items():
            print(f"  {name:20} {len(places):5} {10_000 * len(places) / count:7.1f}")
            if is_listing:
                print("".join(f"      {place}\n" for place in places), end="")
    share, missing = documented_share()
    print(f"\npublic functions with 3 arguments or more that document arguments, results and errors: {share:.0%}")
    if is_listing:
        print("".join(f"      {one.path}:{one.line}: {one.name}\n" for one in missing), end="")
    lines = [function.body_lines for function in functions(sources())]
    largest = max(sources(), key=_lines)
    print(
        f"lines of a function: median {statistics.median(lines):g}, 90th percentile {percentile_90(lines)}, "
        f"most {max(lines)}"
    )
    print(f"largest file: {_relative(largest)}, {_lines(largest)} lines")
    if problems := exceeded():
        print("\nExceeded:", *problems, sep="\n  ")
        sys.exit(1)


if __name__ == "__main__":
    main()
