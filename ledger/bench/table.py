"""The report as a table for people: ratios first, then what was measured."""

from collections.abc import Iterator

from ledger.bench.report import Figure, Report

ROW = "{:<19} {:>9} {:>10}  {:<15} {:<20} {}"


def lines(report: Report) -> Iterator[str]:
    """The report, line by line."""
    machine = report.machine
    if report.quick:
        yield "QUICK: fewer and shorter rounds and little data; these figures only show that all can be measured."
    yield ROW.format("figure", "median", "target", "", "rounds from – to", "work against control")
    for figure in report.figures:
        yield ROW.format(
            figure.name,
            number(figure.value, figure.unit),
            f"{'≥' if figure.better == 'higher' else '≤'} {number(figure.target, figure.unit)}",
            verdict(figure),
            f"{number(min(figure.rounds), figure.unit)} – {number(max(figure.rounds), figure.unit)}",
            sides(figure),
        )
    for name, why in report.not_measured.items():
        yield f"{name}: NOT MEASURED: {why}"
    for figure in report.figures:
        yield ""
        yield f"{figure.name}: {figure.work}"
        if figure.control is not None:
            yield f"  control: {figure.control}"
        if figure.absolute:
            yield "  " + ", ".join(f"{name} {amount:,.4g}" for name, amount in figure.absolute.items())
        if figure.microseconds_per_event:
            parts = ", ".join(f"{name} {amount:,.1f}" for name, amount in figure.microseconds_per_event.items())
            yield f"  microseconds an event: {parts}"
        for note in figure.notes:
            yield f"  {note}"
    yield ""
    yield (
        f"{machine.processors} processors ({machine.processor}), {machine.memory_gb} GB, "
        f"data on {machine.file_system}; {machine.system}"
    )
    yield ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    yield "PostgreSQL: " + ", ".join(f"{name} {value}" for name, value in machine.postgresql_settings.items())
    yield f"Load: {machine.load}. Measured in {report.seconds:,.0f} s at {report.measured_at}."


def number(value: float, unit: str) -> str:
    """A value of a figure."""
    return f"{value:.3f}" if unit == "ratio" else f"{value:,.1f} {unit}"


def verdict(figure: Figure) -> str:
    """Whether the target is met, and the next one where it is not yet."""
    if not figure.met:
        return "MISSED"
    if figure.next_target is not None and figure.value < figure.next_target:
        return f"met, next {number(figure.next_target, figure.unit)}"
    return "met"


def sides(figure: Figure) -> str:
    """What was measured on both sides, where there are two."""
    return " / ".join(
        f"{amount:,.0f} {name.partition(' ')[2]}"
        for name, amount in figure.absolute.items()
        if name.startswith(("work ", "control "))
    )
