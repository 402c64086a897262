"""ledger status: where the log and the read models stand."""

from pathlib import Path

import click
import msgspec
from sqlalchemy import URL

from ledger.audit import tree_store
from ledger.cli.common import (
    home_option,
    json_option,
    print_json,
    reachable_database,
    run,
    settings_for,
)
from ledger.database import Database
from ledger.database.migrations import current_revision
from projections.checkpoint import Failure
from projections.queries import projection_status


class Status(msgspec.Struct):
    """Where the log and the read models stand."""

    revision: str | None
    head: int
    position: int
    lag_events: int
    lag_seconds: float
    projections: str
    last_error: Failure | None
    origin: str | None
    sealed: int
    seal_refusal: str | None


@click.command()
@home_option
@json_option
def status(home: Path | None, as_json: bool) -> None:
    """Say where the log and the read models stand."""
    with reachable_database(settings_for(home)) as url:
        found = run(_status(url))
    if as_json:
        print_json(found)
        return
    click.echo(f"Log: {found.head:,} events. Database at revision {found.revision}.")
    click.echo(f"Read models: {found.projections}, at position {found.position:,}, {found.lag_events:,} events behind.")
    if found.last_error is not None:
        click.echo(
            f"Last error: {found.last_error.type} at position {found.last_error.position}: {found.last_error.error}"
        )
    if found.seal_refusal is not None:
        click.echo(f"NOT SEALED past {found.sealed:,}: {found.seal_refusal}")
    elif found.origin is not None:
        click.echo(f"Sealed: {found.sealed:,} events as {found.origin}.")
    if found.projections == "paused":
        click.echo("They wait for you: `ledger projections retry|skip`, or `ledger rebuild` where a table was changed.")


async def _status(url: URL) -> Status:
    database = Database(url)
    try:
        async with database.engine.connect() as connection:
            revision = await current_revision(connection)
        async with database.connection() as driver:
            standing = await projection_status(driver)
            sealing = await tree_store.read_seal_status(driver)
        return Status(
            revision,
            standing.head,
            standing.position,
            standing.lag_events,
            standing.lag_seconds,
            standing.status,
            standing.failure,
            sealing.origin,
            sealing.size,
            sealing.refusal,
        )
    finally:
        await database.close()
