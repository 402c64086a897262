"""What moved since the accepted run, beyond the noise of the rounds."""

from pathlib import Path

import msgspec
import pytest

from ledger.bench.compare import ACCEPTED, Moved, compare, lines, read_report
from ledger.bench.run import FIGURES
from tests.bench.figures import against, milliseconds, report


def test_rounds_that_overlap_have_not_moved() -> None:
    before, now = report(against("one", 0.5, 0.6, 0.7)), report(against("one", 0.7, 0.8, 0.9))

    assert compare(before, now) == []


def test_rounds_that_do_not_overlap_have_moved_for_better_or_worse() -> None:
    before = report(against("up", 0.5, 0.6, 0.7), against("down", 0.5, 0.6, 0.7), milliseconds("late", 5, 6, 7))
    now = report(against("up", 0.8, 0.9, 1.0), against("down", 0.2, 0.3, 0.4), milliseconds("late", 8, 9, 10))

    assert compare(before, now) == [
        Moved("up", 0.6, 0.9, "ratio", True),
        Moved("down", 0.6, 0.3, "ratio", False),
        Moved("late", 6, 9, "ms", False),
    ]


@pytest.mark.parametrize(("now", "has_moved"), [(91.5, False), (109, False), (111, True), (90, True)])
def test_what_was_measured_once_has_moved_by_more_than_a_tenth(now: float, has_moved: bool) -> None:
    assert bool(compare(report(milliseconds("one", 100)), report(milliseconds("one", now)))) is has_moved


def test_figures_that_only_one_run_has_are_left_out() -> None:
    assert compare(report(against("old", 0.1)), report(against("new", 0.9))) == []


def test_the_lines_say_what_moved_and_what_is_not_alike() -> None:
    before, now = report(against("one", 0.5)), report(against("one", 0.9), quick=True)

    said = "\n".join(lines(before, now, compare(before, now)))

    assert "one: 0.500 → 0.900, better" in said
    assert "quick" in said
    assert "nothing moved" in "\n".join(lines(before, before, []))


def test_a_report_reads_back_as_it_was_written(tmp_path: Path) -> None:
    written = report(against("one", 0.5, 0.6), milliseconds("two", 3))
    file = tmp_path / "report.json"
    file.write_bytes(msgspec.json.encode(written))

    assert read_report(file) == written


def test_the_accepted_run_is_a_whole_one_and_has_every_figure() -> None:
    if not ACCEPTED.exists():
        pytest.skip("NOT TESTED: no run was accepted yet")

    accepted = read_report(ACCEPTED)

    assert not accepted.quick
    assert {figure.name.partition(" ")[0] for figure in accepted.figures} == set(FIGURES)
