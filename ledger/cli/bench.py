"""ledger bench: how fast it is, beside controls measured in the same run."""

import asyncio
import sys
from pathlib import Path

import click
import msgspec

from ledger import faults
from ledger.bench import compare, table
from ledger.bench import run as benchmark
from ledger.bench.report import Figure, Report
from ledger.cli.event_loop import run_async
from ledger.cli.options import json_option
from ledger.cli.output import exit_on_error, print_json


@click.command()
@click.option("--quick", is_flag=True, help="Smaller and shorter: shows in two minutes that all can be measured.")
@click.option("--only", type=click.Choice(list(benchmark.FIGURES)), multiple=True, help="Measure this; repeatable.")
@click.option(
    "--compare",
    "accepted",
    is_flag=False,
    flag_value=compare.ACCEPTED,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Say what moved since this report.  [without a value: the accepted run]",
)
@click.option("--rounds", type=click.IntRange(min=1), help="Turns of work and control.  [default: 5; quick: 2]")
@click.option("--faults", "minutes", type=click.FloatRange(min=0, min_open=True), help="Strike it for so many MINUTES.")
@click.option("--seed", type=int, help="With --faults: strike as the run did that told this seed.")
@json_option
def bench(
    quick: bool,
    only: tuple[str, ...],
    accepted: Path | None,
    rounds: int | None,
    minutes: float | None,
    seed: int | None,
    as_json: bool,
) -> None:
    """Measure the service beside controls, or see what it survives, on a throw-away PostgreSQL of its own.

    No ledger is touched. A missed target is no error: the exit code is 1 only where something could not be measured, or
    a fault broke a promise.
    """
    if minutes is not None:
        _strike(minutes, seed, as_json=as_json)
        return
    before = _read(accepted) if accepted is not None else None
    with exit_on_error():
        try:
            report = benchmark.bench(run_async, only, quick=quick, rounds=rounds, say=_say, measured=_show)
        except asyncio.CancelledError:
            sys.exit(143)
    moved = compare.compare(before, report) if before is not None else []
    if as_json:
        print_json(msgspec.structs.asdict(report) | ({"moved": moved} if before is not None else {}))
        for name, why in report.not_measured.items():
            click.echo(f"{name} could not be measured: {why}", err=True)
    else:
        for line in table.lines(report):
            click.echo(line)
        for line in compare.lines(before, report, moved) if before is not None else ():
            click.echo(line)
    sys.exit(1 if report.not_measured else 0)


def _strike(minutes: float, seed: int | None, *, as_json: bool) -> None:
    """Kill, cut and fill up everything at random under load, and look each time whether every promise held."""
    with exit_on_error():
        try:
            report = run_async(
                faults.run(seed, seconds=60 * minutes, report=lambda line: click.echo(line, err=as_json))
            )
        except asyncio.CancelledError:
            sys.exit(143)
    if as_json:
        print_json(report)
    else:
        outcome = "; ".join(report.violations) or "every promise held"
        click.echo(
            f"{report.fault_count} faults in {report.seconds:.0f} s, {report.events_acknowledged:,} events "
            f"acknowledged, {report.sent_again:,} requests sent again: {outcome}. Again: --seed {report.seed}"
        )
    sys.exit(1 if report.violations else 0)


def _read(accepted: Path) -> Report:
    try:
        return compare.read_report(accepted)
    except FileNotFoundError:
        raise click.UsageError(f"--compare: there is no {accepted}: no run was accepted yet") from None
    except (OSError, msgspec.DecodeError) as error:
        raise click.UsageError(f"--compare: {accepted} cannot be read as a report: {error}") from None


def _say(what: str) -> None:
    """Tell on a terminal what is being done, on one line."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{what} …", err=True, nl=False)


def _show(figure: Figure) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{figure.name}: {table.number(figure.value, figure.unit)}  {table.sides(figure)}", err=True)
