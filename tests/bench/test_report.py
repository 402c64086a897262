"""The arithmetic of the report, and how it reads."""

import pytest

from ledger.bench import table
from ledger.bench.report import Pair, ratio
from tests.bench.figures import against, milliseconds, report


def test_the_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    """Not the ratio of medians: a round in which the whole machine was slow is slow on both sides."""
    pairs = [Pair(50, 100), Pair(5, 10), Pair(90, 100)]

    figure = ratio("one", "work", "control", pairs, target=0.5, unit="events/s")

    assert figure.rounds == [0.5, 0.5, 0.9]
    assert figure.value == 0.5
    assert figure.absolute == {"work events/s": 50, "control events/s": 100}
    assert figure.absolute_rounds == {"work events/s": [50, 5, 90], "control events/s": [100, 10, 100]}


@pytest.mark.parametrize(("middle", "met"), [(0.49, False), (0.5, True), (0.7, True)])
def test_a_ratio_is_met_from_its_target_up(middle: float, met: bool) -> None:
    assert against("one", 0.1, middle, 0.9).met is met


@pytest.mark.parametrize(("middle", "met"), [(14.0, True), (15.0, True), (15.1, False)])
def test_a_time_is_met_up_to_its_target(middle: float, met: bool) -> None:
    assert milliseconds("one", 1, middle, 99).met is met


def test_the_table_names_what_was_measured_where_and_what_was_missed() -> None:
    lines = "\n".join(table.lines(report(against("slow", 0.1, 0.2, 0.3), milliseconds("soon", 1, 2, 3))))

    assert "slow" in lines
    assert "0.200" in lines
    assert "MISSED" in lines
    assert "0.100 – 0.300" in lines
    assert "20 events/s / 100 events/s" in lines
    assert "≤ 15.0 ms" in lines
    assert "2 processors (a processor)" in lines
    assert "fsync on" in lines
    assert "Load: a client." in lines


def test_a_quick_run_says_that_it_is_one() -> None:
    assert next(table.lines(report(quick=True))).startswith("QUICK")


def test_what_could_not_be_measured_is_in_the_table_with_the_reason() -> None:
    given = report(against("one", 1))
    given.not_measured = {"other": "it rained"}

    assert "other: NOT MEASURED: it rained" in table.lines(given)
