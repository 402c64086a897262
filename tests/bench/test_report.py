"""The arithmetic of a benchmark report, and its text."""

import pytest

from ledger.bench import text_report
from ledger.bench.report import Round, ratio_figure
from tests.bench.reports import in_milliseconds, report, with_ratios


def test_the_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    """Not the ratio of medians: if the whole machine is slow in a round, work and control are both slow."""
    rounds = [Round(50, 100), Round(5, 10), Round(90, 100)]

    figure = ratio_figure("one", "work", "control", rounds, target=0.5, unit="events/s")

    assert figure.rounds == [0.5, 0.5, 0.9]
    assert figure.value == 0.5
    assert figure.absolute == {"work events/s": 50, "control events/s": 100}
    assert figure.absolute_rounds == {"work events/s": [50, 5, 90], "control events/s": [100, 10, 100]}


@pytest.mark.parametrize(("middle", "met"), [(0.49, False), (0.5, True), (0.7, True)])
def test_a_ratio_is_met_at_its_target_or_above(middle: float, met: bool) -> None:
    assert with_ratios("one", 0.1, middle, 0.9).met is met


@pytest.mark.parametrize(("middle", "met"), [(14.0, True), (15.0, True), (15.1, False)])
def test_a_duration_is_met_at_its_target_or_below(middle: float, met: bool) -> None:
    assert in_milliseconds("one", 1, middle, 99).met is met


def test_the_text_names_the_figures_the_host_and_the_missed_targets() -> None:
    text = "\n".join(text_report.lines(report(with_ratios("slow", 0.1, 0.2, 0.3), in_milliseconds("soon", 1, 2, 3))))

    assert "slow" in text
    assert "0.200" in text
    assert "MISSED" in text
    assert "0.100 – 0.300" in text
    assert "20 events/s / 100 events/s" in text
    assert "≤ 15.0 ms" in text
    assert "2 processors (a processor)" in text
    assert "fsync on" in text
    assert "Load: a client." in text


def test_the_text_of_a_quick_run_begins_with_a_warning() -> None:
    assert next(text_report.lines(report(quick=True))).startswith("QUICK")


def test_the_text_gives_the_reason_if_a_figure_could_not_be_measured_or_a_promise_was_violated() -> None:
    incomplete = report(with_ratios("one", 1))
    incomplete.not_measured = {"other": "the server is down"}
    incomplete.violated = {"holds": "overspent"}

    lines = list(text_report.lines(incomplete))

    assert "other: NOT MEASURED: the server is down" in lines
    assert "holds: VIOLATED: overspent" in lines
