"""ledger migrate, seed and reset: commands that change the database as a whole."""

import os
from pathlib import Path

import click
from sqlalchemy import URL

from ledger import sample_data
from ledger.cli.databases import (
    database_folder,
    migrate_database,
    migrate_new_database,
    open_appender,
    owner_url,
    service_url,
)
from ledger.cli.event_loop import run_async
from ledger.cli.options import home_option, json_option
from ledger.cli.output import counted, exit_on_error, fail, print_json
from ledger.cli.settings import LOOPBACK_HOSTS, settings_for, signing_files
from ledger.cli.user import command_line_actor
from ledger.config import Settings
from ledger.database import Database
from ledger.database.migrations import expected_revision
from ledger.embedded import exclusive_home
from projections.catch_up import fold_new_events
from projections.queries import ProjectionStatus


@click.command()
@home_option
@json_option
def migrate(home: Path | None, as_json: bool) -> None:
    """Migrate the database to this release's revision.

    Safe to repeat. Connects as the owner (DIRECT_DATABASE_URL) if that is set.
    """
    settings = settings_for(home)
    with owner_url(settings, create=True) as url:
        run_async(migrate_database(url))
    if as_json:
        print_json({"revision": expected_revision()})
    else:
        click.echo(f"The database is at revision {expected_revision()}.")


@click.command()
@home_option
@json_option
def seed(home: Path | None, as_json: bool) -> None:
    """Append the sample data, and update the tables.

    Safe to repeat: events that are already in the log are skipped. A new embedded PostgreSQL is created and migrated
    first if no database is configured.
    """
    settings = settings_for(home)
    with service_url(settings, create=True) as url:
        added, status = run_async(_seed(settings, url))
    if as_json:
        print_json({"events": added, "position": status.position, "lag_events": status.lag_events})
        return
    print_seeded(added)
    if status.lag_events:
        click.echo(f"The tables are {counted(status.lag_events, 'event')} behind: see `ledger status`.")
    else:
        click.echo(f"The tables are up to date, at position {status.position:,}.")


async def _seed(settings: Settings, url: URL) -> tuple[int, ProjectionStatus]:
    async with Database(url) as database:
        await migrate_new_database(database, settings)
        added = await append_sample_data(database)
        return added, await fold_new_events(database)


async def append_sample_data(database: Database) -> int:
    """Append the sample data; return the number of events added, 0 if it was complete."""
    async with open_appender(database) as appender:
        return await sample_data.seed(database, appender, command_line_actor())


def print_seeded(added: int) -> None:
    """Print how many events of the sample data were added."""
    click.echo(f"Sample data: {counted(added, 'event')} added." if added else "Sample data: already there.")


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--force", is_flag=True, help="Also reset a database on another machine.")
@home_option
def reset(yes: bool, force: bool, home: Path | None) -> None:
    """Delete all events and tables, and start an empty ledger.

    Asks for confirmation. The next log has another origin, so it cannot be mistaken for a continuation of this one.
    """
    with exit_on_error():
        settings = settings_for(home)
        _require_local(settings, force)
        click.echo("This deletes the whole ledger: every event and every table. It cannot be undone.")
        if not yes and not _is_confirmed():
            click.echo("Cancelled.")
            return
        # A service that uses this home would continue with the old log's state in memory.
        with owner_url(settings) as url, exclusive_home(settings.home, "ledger reset"):
            run_async(_reset(settings, url))
    click.echo("The ledger is empty.")


async def _reset(settings: Settings, url: URL) -> None:
    async with Database(url) as database:
        origin, note = await _last_sealed(database)
        folder = await database_folder(database, settings)
    await migrate_database(url, from_base=True)
    if not folder.may_hold_another_log:
        folder.claim()
        # The next log gets another origin: holders of the last checkpoint must not take it for a continuation.
        signing_files(settings, folder).archive_checkpoint(origin, note)


async def _last_sealed(database: Database) -> tuple[str | None, bytes | None]:
    """Return origin and last checkpoint of the log in the database; None if it was never sealed."""
    async with database.connection() as connection:
        if await connection.fetchval("SELECT to_regclass('ledger.log_checkpoint')") is None:
            return None, None
        row = await connection.fetchrow("SELECT origin, note FROM ledger.log_checkpoint")
        return (row["origin"], row["note"]) if row is not None else (None, None)


def _is_confirmed() -> bool:
    try:
        answer: str = click.prompt("Type yes to continue", default="no", show_default=False)
    except click.Abort:
        # Standard input is closed: no answer is a no.
        return False
    return answer == "yes"


def _require_local(settings: Settings, force: bool) -> None:
    for url in (settings.database_url, settings.direct_database_url):
        host = str(url.query.get("host") or url.host or "") if url is not None else ""
        if host and host not in LOOPBACK_HOSTS and not host.startswith(os.sep) and not force:
            fail(f"the database is on another machine, {host}; to reset it, add --force")
