"""ledger projections: the two ways on when an event cannot be folded."""

import getpass
from pathlib import Path

import click
from sqlalchemy import URL

from ledger.cli.common import (
    appending,
    home_option,
    json_option,
    print_json,
    reachable_database,
    reason_option,
    require_migrated,
    run,
    settings_for,
)
from ledger.database import Database
from ledger.domain.ledger_events import ProjectionSkipped
from projections import skips
from projections.checkpoint import GROUP, PROJECTIONS

name_argument = click.argument("name", type=click.Choice((GROUP, *PROJECTIONS)))


@click.group()
def projections() -> None:
    """Go on when an event cannot be folded. The four read models move together: any of their names will do."""


@projections.command()
@name_argument
@home_option
@json_option
def retry(name: str, home: Path | None, as_json: bool) -> None:
    """Have the worker try again what it gave up."""
    with reachable_database(settings_for(home)) as url:
        run(_retry(url))
    if as_json:
        print_json({"name": name, "status": "running"})
    else:
        click.echo("The worker tries again; `ledger status` says how it goes.")


async def _retry(url: URL) -> None:
    database = Database(url)
    try:
        await require_migrated(database)
        await skips.retry(database)
    finally:
        await database.close()


@projections.command()
@name_argument
@reason_option
@home_option
@json_option
def skip(name: str, reason: str, home: Path | None, as_json: bool) -> None:
    """Let the read models pass the event that stops them.

    The tables then lack what it says, until a release can fold it. The skip is recorded as an event, with who and why.
    """
    with reachable_database(settings_for(home)) as url:
        decided = run(_skip(url, reason))
    if as_json:
        print_json(decided)
    else:
        click.echo(f"Skipped: {decided.event_type} at position {decided.position}. `ledger verify` goes on telling it.")


async def _skip(url: URL, reason: str) -> ProjectionSkipped:
    database = Database(url)
    try:
        await require_migrated(database)
        async with appending(database) as appender:
            return await skips.skip(database, appender, by=getpass.getuser(), reason=reason)
    finally:
        await database.close()
