"""ledger bench: how fast it is, beside controls measured in the same run."""

import asyncio
import sys

import click

from ledger.bench import run as benchmark
from ledger.bench import table
from ledger.bench.processes import MeasurementFailed
from ledger.bench.report import Figure
from ledger.cli.common import fail, json_option, plain_errors, print_json, run


@click.command()
@click.option("--quick", is_flag=True, help="Smaller and shorter: shows in two minutes that all can be measured.")
@click.option("--only", type=click.Choice(list(benchmark.FIGURES)), multiple=True, help="Measure this; repeatable.")
@json_option
def bench(quick: bool, only: tuple[str, ...], as_json: bool) -> None:
    """Measure the service beside controls, on a throw-away PostgreSQL of its own.

    No ledger is touched. A missed target is no error: the exit code is 1 only where something could not be measured.
    """
    with plain_errors():
        try:
            report = benchmark.bench(run, only, quick=quick, say=_say, measured=_show)
        except MeasurementFailed as error:
            fail(str(error))
        except asyncio.CancelledError:
            sys.exit(143)
    if as_json:
        print_json(report)
    else:
        for line in table.lines(report):
            click.echo(line)


def _say(what: str) -> None:
    """Tell on a terminal what is being done, on one line."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{what} …", err=True, nl=False)


def _show(figure: Figure) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{figure.name}: {table.number(figure.value, figure.unit)}  {table.sides(figure)}", err=True)
