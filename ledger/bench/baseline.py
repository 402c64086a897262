"""Compares a benchmark run with an earlier one, such as the accepted run: what moved beyond the noise.

A figure has moved if the ranges of the two runs' rounds do not overlap. A figure measured only once has no range: it
has moved if it differs by more than a tenth.
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from ledger.bench.report import BenchReport, Figure
from ledger.bench.text_report import format_value

SINGLE_ROUND_NOISE = 0.1


class Moved(msgspec.Struct):
    """A figure whose value has moved; `better` takes the direction of the figure into account."""

    name: str
    before: float
    now: float
    unit: str
    better: bool


def read_report(file: Path) -> BenchReport:
    """Read the output of `ledger bench --json`.

    Raises:
        OSError: the file cannot be read.
        msgspec.DecodeError: it is not such a report.
    """
    return msgspec.json.decode(file.read_bytes(), type=BenchReport)


def compare(baseline: BenchReport, report: BenchReport) -> list[Moved]:
    """Return the figures that have moved, among those that both runs have."""
    before = {figure.name: figure for figure in baseline.figures}
    return [
        Moved(
            figure.name,
            before[figure.name].value,
            figure.value,
            figure.unit,
            (figure.value > before[figure.name].value) == (figure.better == "higher"),
        )
        for figure in report.figures
        if figure.name in before and not _overlap(before[figure.name], figure)
    ]


def _overlap(one: Figure, other: Figure) -> bool:
    low_one, high_one = _range(one)
    low_other, high_other = _range(other)
    return low_one <= high_other and low_other <= high_one


def _range(figure: Figure) -> tuple[float, float]:
    if len(figure.rounds) > 1:
        return min(figure.rounds), max(figure.rounds)
    return figure.value / (1 + SINGLE_ROUND_NOISE) ** 0.5, figure.value * (1 + SINGLE_ROUND_NOISE) ** 0.5


def lines(baseline: BenchReport, report: BenchReport) -> Iterator[str]:
    """Yield the comparison as lines of text."""
    yield f"Compared with the run of {baseline.measured_at}:"
    if baseline.quick != report.quick:
        yield "  one of the two runs is a quick one, which uses other sizes: the figures are not comparable"
    host, other = report.machine, baseline.machine
    if (other.processor, other.processors) != (host.processor, host.processors):
        yield f"  that run was measured on another machine: {other.processors} processors ({other.processor})"
    moved = compare(baseline, report)
    for figure in moved:
        before, now = format_value(figure.before, figure.unit), format_value(figure.now, figure.unit)
        yield f"  {figure.name}: {before} → {now}, {'better' if figure.better else 'WORSE'}"
    if not moved:
        yield "  nothing moved beyond the noise of the rounds"
