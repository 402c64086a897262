"""Comparing a benchmark run with an earlier one: a figure moves only beyond the noise of its rounds."""

from pathlib import Path

import msgspec
import pytest

from ledger.bench.baseline import Moved, compare, lines, read_report
from ledger.bench.run import FIGURES
from ledger.cli.bench import ACCEPTED_REPORT
from tests.bench.reports import in_milliseconds, report, with_ratios

ADDED_SINCE = {"append_priced"}
"""Figures that are newer than the accepted run; none once it is renewed."""


def test_a_figure_whose_rounds_overlap_has_not_moved() -> None:
    before, now = report(with_ratios("one", 0.5, 0.6, 0.7)), report(with_ratios("one", 0.7, 0.8, 0.9))

    assert compare(before, now) == []


def test_a_figure_whose_rounds_do_not_overlap_has_become_better_or_worse() -> None:
    before = report(
        with_ratios("up", 0.5, 0.6, 0.7), with_ratios("down", 0.5, 0.6, 0.7), in_milliseconds("late", 5, 6, 7)
    )
    now = report(
        with_ratios("up", 0.8, 0.9, 1.0), with_ratios("down", 0.2, 0.3, 0.4), in_milliseconds("late", 8, 9, 10)
    )

    assert compare(before, now) == [
        Moved("up", 0.6, 0.9, "ratio", True),
        Moved("down", 0.6, 0.3, "ratio", False),
        Moved("late", 6, 9, "ms", False),
    ]


@pytest.mark.parametrize(("now", "has_moved"), [(91.5, False), (109, False), (111, True), (90, True)])
def test_a_figure_measured_once_has_moved_if_it_differs_by_more_than_a_tenth(now: float, has_moved: bool) -> None:
    assert bool(compare(report(in_milliseconds("one", 100)), report(in_milliseconds("one", now)))) is has_moved


def test_figures_that_only_one_run_has_are_ignored() -> None:
    assert compare(report(with_ratios("old", 0.1)), report(with_ratios("new", 0.9))) == []


def test_the_lines_show_what_moved_and_why_runs_are_not_comparable() -> None:
    before, now = report(with_ratios("one", 0.5)), report(with_ratios("one", 0.9), quick=True)

    text = "\n".join(lines(before, now))

    assert "one: 0.500 → 0.900, better" in text
    assert "quick" in text
    assert "nothing moved" in "\n".join(lines(before, before))


def test_a_report_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    written = report(with_ratios("one", 0.5, 0.6), in_milliseconds("two", 3))
    file = tmp_path / "report.json"
    file.write_bytes(msgspec.json.encode(written))

    assert read_report(file) == written


def test_the_accepted_run_is_a_full_one_with_every_figure() -> None:
    if not ACCEPTED_REPORT.exists():
        pytest.skip("NOT TESTED: there is no accepted run yet")

    accepted = read_report(ACCEPTED_REPORT)

    assert not accepted.quick
    assert {figure.name.partition(" ")[0] for figure in accepted.figures} == set(FIGURES) - ADDED_SINCE
