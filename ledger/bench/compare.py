"""What moved since the accepted run, beyond the noise.

A figure has moved where the ranges of the two runs' rounds do not overlap. A figure that was measured once has no
rounds: it has moved where it differs by more than a tenth.
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from ledger.bench.report import Figure, Report
from ledger.bench.table import number

ACCEPTED = Path(__file__).with_name("accepted.json")
"""The report of the last accepted run: `ledger bench --json`, kept beside the code that it was measured on."""

SINGLE_NOISE = 0.1


class Moved(msgspec.Struct):
    """A figure that is no longer what it was; `better` by the figure's own sense."""

    name: str
    before: float
    now: float
    unit: str
    better: bool


def read_report(file: Path) -> Report:
    """Read a report.

    Raises:
        OSError: it is not there.
        msgspec.DecodeError: it is no report.
    """
    return msgspec.json.decode(file.read_bytes(), type=Report)


def compare(accepted: Report, report: Report) -> list[Moved]:
    """What has moved, of the figures that both runs have."""
    before = {figure.name: figure for figure in accepted.figures}
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
    return figure.value / (1 + SINGLE_NOISE) ** 0.5, figure.value * (1 + SINGLE_NOISE) ** 0.5


def lines(accepted: Report, report: Report, moved: list[Moved]) -> Iterator[str]:
    """The comparison, line by line."""
    yield f"Compared with the run of {accepted.measured_at}:"
    if accepted.quick != report.quick:
        yield "  one of the two runs is a quick one: their figures are of other sizes"
    if (accepted.machine.processor, accepted.machine.processors) != (
        report.machine.processor,
        report.machine.processors,
    ):
        yield f"  measured on another machine: {accepted.machine.processors} processors ({accepted.machine.processor})"
    for figure in moved:
        before, now = number(figure.before, figure.unit), number(figure.now, figure.unit)
        yield f"  {figure.name}: {before} → {now}, {'better' if figure.better else 'WORSE'}"
    if not moved:
        yield "  nothing moved beyond the noise of the rounds"
