"""`ledger bench`: benchmarks against controls, and the fault-injection suite (`--faults`).

`ledger.bench` is imported only when the command runs: it loads multiprocessing and the faults, which no other command
needs.
"""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

import ledger
from ledger.cli.event_loop import run_async
from ledger.cli.options import json_option
from ledger.cli.output import exit_on_error, print_json

if TYPE_CHECKING:
    from ledger.bench.report import BenchReport, Figure

ACCEPTED_REPORT = Path(ledger.__file__).parent / "bench" / "accepted.json"
"""The output of `ledger bench --json` of the last accepted run."""

EXIT_CODE_SIGTERM = 143


class FigureName(click.ParamType):  # type: ignore[type-arg]  # generic only in recent releases of click
    """The name of a figure; the names are imported once they are needed."""

    name = "figure"

    def get_metavar(self, *arguments: Any, **named: Any) -> str | None:
        """Return the names, for the help text."""
        return _figure_choice().get_metavar(*arguments, **named)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the name.

        Args:
            value: the argument on the command line.
            param: the option.
            ctx: of the command.

        Returns:
            the name of the figure.

        Raises:
            click.BadParameter: there is no such figure; the message lists the valid names.
        """
        return _figure_choice().convert(value, param, ctx)


def _figure_choice() -> "click.Choice[str]":
    from ledger.bench.run import FIGURES

    return click.Choice(list(FIGURES))


@click.command()
@click.option("--quick", is_flag=True, help="Small and short: shows in three minutes that everything can be measured.")
@click.option("--only", type=FigureName(), multiple=True, help="Measure only this figure; repeatable.")
@click.option(
    "--compare",
    "baseline_file",
    is_flag=False,
    flag_value=ACCEPTED_REPORT,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Show what changed since this report.  [without a value: the accepted run]",
)
@click.option("--rounds", type=click.IntRange(min=1), help="Rounds of work and control.  [default: 5; quick: 2]")
@click.option(
    "--faults",
    "minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="Run the fault-injection suite for MINUTES instead.",
)
@click.option(
    "--apis",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="With --faults: the number of API processes.",
)
@click.option("--seed", type=int, help="With --faults: inject the same faults as the run that printed this seed.")
@json_option
def bench(
    quick: bool,
    only: tuple[str, ...],
    baseline_file: Path | None,
    rounds: int | None,
    minutes: float | None,
    apis: int,
    seed: int | None,
    as_json: bool,
) -> None:
    """Benchmark the service, or test it under faults.

    It uses a temporary PostgreSQL server and touches no existing ledger. Figures are compared with controls. A missed
    target is not an error. The exit code is 1 if a figure could not be measured, or if the service violated a promise.
    """
    if minutes is not None:
        _run_faults(minutes, seed, apis, as_json=as_json)
        return
    baseline = _read_baseline(baseline_file) if baseline_file is not None else None
    report = _measure(only, quick=quick, rounds=rounds)
    if as_json:
        _print_json(report, baseline)
    else:
        _print_text(report, baseline)
    sys.exit(1 if report.not_measured or report.violated else 0)


def _measure(only: tuple[str, ...], *, quick: bool, rounds: int | None) -> "BenchReport":
    from ledger.bench.run import bench as run_benchmarks

    with _exit_on_error_or_sigterm():
        return run_benchmarks(run_async, only, quick=quick, rounds=rounds, on_step=_show_step, on_figure=_show_figure)


@contextmanager
def _exit_on_error_or_sigterm() -> Iterator[None]:
    """Exit on expected errors, and as a terminated process does if SIGTERM has cancelled the work inside."""
    with exit_on_error():
        try:
            yield
        except asyncio.CancelledError:
            sys.exit(EXIT_CODE_SIGTERM)


def _print_json(report: "BenchReport", baseline: "BenchReport | None") -> None:
    from ledger.bench.baseline import compare

    moved = {"moved": compare(baseline, report)} if baseline is not None else {}
    print_json(msgspec.structs.asdict(report) | moved)
    for name, reason in report.violated.items():
        click.echo(f"VIOLATED: {name}: {reason}", err=True)
    for name, reason in report.not_measured.items():
        click.echo(f"{name} could not be measured: {reason}", err=True)


def _print_text(report: "BenchReport", baseline: "BenchReport | None") -> None:
    from ledger.bench import baseline as baselines
    from ledger.bench import text_report

    for line in text_report.lines(report):
        click.echo(line)
    if baseline is not None:
        for line in baselines.lines(baseline, report):
            click.echo(line)


def _read_baseline(file: Path) -> "BenchReport":
    from ledger.bench.baseline import read_report

    try:
        return read_report(file)
    except FileNotFoundError:
        raise click.UsageError(
            f"--compare: {file} does not exist; write a report with `ledger bench --json > {file}`"
        ) from None
    except (OSError, msgspec.DecodeError) as error:
        raise click.UsageError(f"--compare: {file} cannot be read as a report: {error}") from None


def _run_faults(minutes: float, seed: int | None, apis: int, *, as_json: bool) -> None:
    """Inject random faults under load, and check after each that the service kept every promise."""
    from ledger.bench import faults

    with _exit_on_error_or_sigterm():
        running = faults.run(
            seed, seconds=60 * minutes, api_count=apis, on_step=lambda line: click.echo(line, err=as_json)
        )
        report = run_async(running)
    if as_json:
        print_json(report)
    else:
        click.echo(
            f"{report.fault_count} faults in {report.seconds:.0f} s, {report.events_acknowledged:,} events "
            f"acknowledged, {report.sent_again:,} requests sent again. To repeat: --seed {report.seed}"
        )
        if not report.violations:
            click.echo("Every promise was kept.")
    for violation in report.violations:
        click.echo(f"VIOLATED: {violation}", err=as_json)
    sys.exit(1 if report.violations else 0)


def _show_step(step: str) -> None:
    """Show on a terminal what is being done, in one line that the next step overwrites."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{step} …", err=True, nl=False)


def _show_figure(figure: "Figure") -> None:
    from ledger.bench.text_report import format_value, work_and_control

    if sys.stderr.isatty():
        value = format_value(figure.value, figure.unit)
        click.echo(f"\r\x1b[K{figure.name}: {value}  {work_and_control(figure)}", err=True)
