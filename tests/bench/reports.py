"""Hand-made benchmark reports."""

from ledger.bench.report import BenchReport, Figure, Host, Round, absolute_figure, ratio_figure

HOST = Host(2, "a processor", 4.0, "ext4", "a system", {"ledger": "1"}, {"fsync": "on"}, "a client")


def with_ratios(name: str, *ratios: float, target: float = 0.5) -> Figure:
    """Return a figure with a control, whose rounds have these ratios."""
    rounds = [Round(ratio * 100, 100) for ratio in ratios]
    return ratio_figure(name, "work", "control", rounds, target=target, unit="events/s")


def in_milliseconds(name: str, *rounds: float, target: float = 15) -> Figure:
    """Return a figure of which lower is better."""
    return absolute_figure(name, "work", list(rounds), unit="ms", target=target)


def report(*figures: Figure, quick: bool = False) -> BenchReport:
    """Return the report of a run that measured these figures."""
    return BenchReport(quick, "2026-01-01T00:00:00+00:00", 10.0, {"one": 10.0}, {"rounds": 5}, HOST, list(figures))
