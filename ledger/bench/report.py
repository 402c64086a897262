"""What was measured: medians, ratios to the control, and the report that carries them."""

from statistics import median
from typing import Literal, NamedTuple

import msgspec

Better = Literal["higher", "lower"]


class Figure(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One row of the report.

    `value` is the median of `rounds`, in `unit`: a ratio to the control where there is one. `next_target` is where to
    go once the target is met. `absolute` are medians of what was measured, by name with their unit.
    `microseconds_per_event` says where the time goes: CPU time of the processes, and elapsed time where the name says
    so.
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


class Pair(NamedTuple):
    """One round: how much a second the work did, and the control right beside it."""

    work: float
    control: float


class Machine(msgspec.Struct):
    """Where it was measured, with what versions and settings."""

    processors: int
    processor: str
    memory_gb: float
    file_system: str
    system: str
    versions: dict[str, str]
    postgresql_settings: dict[str, str]
    load: str


class Report(msgspec.Struct):
    """A whole run.

    `seconds_of` says how long each figure took, with what it prepared for itself and for others; `not_measured` why
    others are missing.
    """

    quick: bool
    measured_at: str
    seconds: float
    seconds_of: dict[str, float]
    plan: dict[str, float]
    machine: Machine
    figures: list[Figure]
    not_measured: dict[str, str] = {}


def ratio(
    name: str,
    work: str,
    control: str,
    pairs: list[Pair],
    *,
    target: float,
    next_target: float | None = None,
    unit: str,
    absolute: dict[str, list[float]] | None = None,
    microseconds_per_event: dict[str, float] | None = None,
    notes: list[str] | None = None,
) -> Figure:
    """A figure out of rounds in which work and control took turns: the median of the rounds' ratios.

    Args:
        unit: of work and control, such as "events/s".
        absolute: what else was measured, by name with its unit, a value a round.
    """
    rounds = {
        f"work {unit}": [pair.work for pair in pairs],
        f"control {unit}": [pair.control for pair in pairs],
        **(absolute or {}),
    }
    ratios = [pair.work / pair.control for pair in pairs]
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
        absolute={name: median(values) for name, values in rounds.items()},
        absolute_rounds=rounds,
        microseconds_per_event=microseconds_per_event or {},
        notes=notes or [],
    )


def value(
    name: str,
    work: str,
    rounds: list[float],
    *,
    unit: Literal["ms", "MB"],
    target: float,
    notes: list[str] | None = None,
) -> Figure:
    """A figure without a control, where lower is better."""
    return Figure(
        name=name,
        work=work,
        value=median(rounds),
        unit=unit,
        better="lower",
        target=target,
        met=median(rounds) <= target,
        rounds=rounds,
        notes=notes or [],
    )
