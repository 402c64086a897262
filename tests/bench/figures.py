"""Reports made by hand."""

from ledger.bench.report import Figure, Machine, Pair, Report, ratio, value

MACHINE = Machine(2, "a processor", 4.0, "ext4", "a system", {"ledger": "1"}, {"fsync": "on"}, "a client")


def against(name: str, *rounds: float, target: float = 0.5) -> Figure:
    """A figure with a control whose rounds have these ratios."""
    return ratio(name, "work", "control", [Pair(part * 100, 100) for part in rounds], target=target, unit="events/s")


def milliseconds(name: str, *rounds: float, target: float = 15) -> Figure:
    """A figure where lower is better."""
    return value(name, "work", list(rounds), unit="ms", target=target)


def report(*figures: Figure, quick: bool = False) -> Report:
    """A run that measured these."""
    return Report(quick, "2026-01-01T00:00:00+00:00", 10.0, {"one": 10.0}, {"rounds": 5}, MACHINE, list(figures))
