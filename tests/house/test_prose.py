"""Limits of the prose: dialect, docstrings of public functions, sizes of functions and files."""

import pytest

from scripts import prose_report


def test_prose_docstrings_and_sizes_keep_their_limits() -> None:
    assert prose_report.exceeded() == []


@pytest.mark.parametrize(
    ("marker", "text"),
    [
        ("where meaning if", "None where there is none."),
        ("where meaning if", "Where the\nlog is empty, 0."),
        ("so long, so many", "Waits so long; at most so many. So often"),
        ("told", "A process that was told of it."),
        ("who as a noun", "Who waits is woken."),
        ("who as a noun", "The signal: who waits is woken."),
        ("who as a noun", "A line for who reads."),
        ("he for a process", "The worker ends when he wants."),
    ],
)
def test_a_marker_finds_the_dialect(marker: str, text: str) -> None:
    places = prose_report.occurrences([prose_report.Text("a file", 1, text)])

    assert places[marker]


@pytest.mark.parametrize(
    "text",
    [
        "The folder in which the files are.",
        "It is so long that it wraps, and true so long as nothing changes.",
        "Who may call this?",
        "A client who waits, and anybody who reads.",
    ],
)
def test_plain_english_has_no_marker(text: str) -> None:
    places = prose_report.occurrences([prose_report.Text("a file", 1, text)])

    assert {name: found for name, found in places.items() if found} == {}
