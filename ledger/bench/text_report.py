"""The report of a benchmark run as text: a table of figures against targets, then the details."""

from collections.abc import Iterator

from ledger.bench.report import BenchReport, Figure

ROW = "{:<19} {:>9} {:>10}  {:<15} {:<20} {}"


def lines(report: BenchReport) -> Iterator[str]:
    """Yield the lines of the report."""
    if report.quick:
        yield "QUICK: fewer and shorter rounds, little data; these values only show that everything can be measured."
    yield from _table(report)
    for figure in report.figures:
        yield ""
        yield from _details(figure)
    yield ""
    yield from _host(report)


def _table(report: BenchReport) -> Iterator[str]:
    yield ROW.format("figure", "median", "target", "", "rounds from – to", "work against control")
    for figure in report.figures:
        yield ROW.format(
            figure.name,
            format_value(figure.value, figure.unit),
            f"{'≥' if figure.better == 'higher' else '≤'} {format_value(figure.target, figure.unit)}",
            verdict(figure),
            f"{format_value(min(figure.rounds), figure.unit)} – {format_value(max(figure.rounds), figure.unit)}",
            work_and_control(figure),
        )
    for name, reason in report.violated.items():
        yield f"{name}: VIOLATED: {reason}"
    for name, reason in report.not_measured.items():
        yield f"{name}: NOT MEASURED: {reason}"


def _details(figure: Figure) -> Iterator[str]:
    yield f"{figure.name}: {figure.work}"
    if figure.control is not None:
        yield f"  control: {figure.control}"
    if figure.absolute:
        yield "  " + ", ".join(f"{name} {amount:,.4g}" for name, amount in figure.absolute.items())
    if figure.microseconds_per_event:
        parts = ", ".join(f"{name} {amount:,.1f}" for name, amount in figure.microseconds_per_event.items())
        yield f"  microseconds per event: {parts}"
    for note in figure.notes:
        yield f"  {note}"


def _host(report: BenchReport) -> Iterator[str]:
    host = report.machine
    yield (
        f"{host.processors} processors ({host.processor}), {host.memory_gb} GB, "
        f"data on {host.file_system}; {host.system}"
    )
    yield ", ".join(f"{name} {version}" for name, version in host.versions.items())
    yield "PostgreSQL: " + ", ".join(f"{name} {setting}" for name, setting in host.postgresql_settings.items())
    yield f"Load: {host.load}. Measured in {report.seconds:,.0f} s at {report.measured_at}."


def format_value(value: float, unit: str) -> str:
    """Return a value with its unit; ratios have none."""
    return f"{value:.3f}" if unit == "ratio" else f"{value:,.1f} {unit}"


def verdict(figure: Figure) -> str:
    """Return whether the target is met, and the next target if that is not met yet."""
    if not figure.met:
        return "MISSED"
    if figure.next_target is not None and figure.value < figure.next_target:
        return f"met, next {format_value(figure.next_target, figure.unit)}"
    return "met"


def work_and_control(figure: Figure) -> str:
    """Return the rates of work and control, if the figure has a control."""
    return " / ".join(
        f"{amount:,.0f} {name.partition(' ')[2]}"
        for name, amount in figure.absolute.items()
        if name.startswith(("work ", "control "))
    )
