"""The report of a benchmark run: figures as medians of rounds and ratios to controls; JSON."""

from statistics import median
from typing import Literal, NamedTuple

import msgspec

Better = Literal["higher", "lower"]


class Figure(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One row of the report.

    `value` is the median of `rounds`, in `unit`: a ratio to the control if there is one. `next_target` applies once
    `target` is met. `absolute` holds medians of the measured amounts, by name with their unit.
    `microseconds_per_event` is processor time per process, and elapsed time if the name contains `elapsed`.
    """

    name: str
    work: str
    value: float
    unit: Literal["ratio", "ms", "MB"]
    better: Better
    target: float
    met: bool
    rounds: list[float]
    next_target: float | None = None
    control: str | None = None
    absolute: dict[str, float] = {}
    absolute_rounds: dict[str, list[float]] = {}
    microseconds_per_event: dict[str, float] = {}
    notes: list[str] = []


class Round(NamedTuple):
    """The rates of one round, per second: of the work, and of the control measured immediately before it."""

    work: float
    control: float


class Host(msgspec.Struct):
    """The hardware, versions and settings that the run was measured with."""

    processors: int
    processor: str
    memory_gb: float
    file_system: str
    system: str
    versions: dict[str, str]
    postgresql_settings: dict[str, str]
    load: str


class BenchReport(msgspec.Struct):
    """A benchmark run, as `ledger bench --json` prints it.

    `seconds_of` is the duration of each figure, including the templates it prepared. `not_measured` and `violated`
    hold the reasons, by figure, why others are missing.
    """

    quick: bool
    measured_at: str
    seconds: float
    seconds_of: dict[str, float]
    plan: dict[str, float]
    machine: Host
    figures: list[Figure]
    not_measured: dict[str, str] = {}
    violated: dict[str, str] = {}


def ratio_figure(
    name: str,
    work: str,
    control: str,
    rounds: list[Round],
    *,
    target: float,
    next_target: float | None = None,
    unit: str,
    absolute: dict[str, list[float]] | None = None,
    microseconds_per_event: dict[str, float] | None = None,
    notes: list[str] | None = None,
) -> Figure:
    """Return the figure of rounds in which work and control took turns: the median of the rounds' ratios.

    Args:
        name: of the figure.
        work: what was measured, in words.
        control: what it is compared with, in words.
        rounds: rates of work and control.
        target: the ratio to reach.
        next_target: the ratio to reach after that.
        unit: of the rates, such as "events/s".
        absolute: other measurements, by name with their unit; one value per round.
        microseconds_per_event: processor time per process, and elapsed times.
        notes: shown below the figure.

    Returns:
        the figure.
    """
    amounts = {
        f"work {unit}": [each.work for each in rounds],
        f"control {unit}": [each.control for each in rounds],
        **(absolute or {}),
    }
    ratios = [each.work / each.control for each in rounds]
    return Figure(
        name=name,
        work=work,
        value=median(ratios),
        unit="ratio",
        better="higher",
        target=target,
        met=median(ratios) >= target,
        rounds=ratios,
        next_target=next_target,
        control=control,
        absolute={name: median(values) for name, values in amounts.items()},
        absolute_rounds=amounts,
        microseconds_per_event=microseconds_per_event or {},
        notes=notes or [],
    )


def absolute_figure(
    name: str,
    work: str,
    rounds: list[float],
    *,
    unit: Literal["ratio", "ms", "MB"],
    target: float,
    absolute: dict[str, list[float]] | None = None,
    notes: list[str] | None = None,
) -> Figure:
    """Return a figure without a control, of which lower is better: the median of the rounds.

    Args:
        name: of the figure.
        work: what was measured, in words.
        rounds: the measured values, in `unit`.
        unit: of the values; a ratio if each round has been compared with another measurement.
        target: the most it should be, in `unit`.
        absolute: other measurements, by name with their unit; one value per round.
        notes: shown below the figure.

    Returns:
        the figure.
    """
    return Figure(
        name=name,
        work=work,
        value=median(rounds),
        unit=unit,
        better="lower",
        target=target,
        met=median(rounds) <= target,
        rounds=rounds,
        absolute={name: median(values) for name, values in (absolute or {}).items()},
        absolute_rounds=absolute or {},
        notes=notes or [],
    )
