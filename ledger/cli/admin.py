"""ledger migrate, seed and reset: what changes the database as a whole."""

import os
from pathlib import Path

import click
from sqlalchemy import URL

from ledger import sample_data
from ledger.cli.common import (
    LOOPBACK,
    appending,
    fail,
    home_option,
    json_option,
    owners_database,
    plain_errors,
    print_json,
    reachable_database,
    run,
    settings_for,
    signing_files,
)
from ledger.cli.databases import bring_up_to_date
from ledger.config import Settings
from ledger.database import Database
from ledger.database.migrations import expected_revision
from ledger.embedded import exclusive_home


@click.command()
@home_option
@json_option
def migrate(home: Path | None, as_json: bool) -> None:
    """Bring the database's tables up to date."""
    settings = settings_for(home)
    with owners_database(settings) as url:
        run(bring_up_to_date(url))
    if as_json:
        print_json({"revision": expected_revision()})
    else:
        click.echo(f"The database is at revision {expected_revision()}.")


@click.command()
@home_option
@json_option
def seed(home: Path | None, as_json: bool) -> None:
    """Add the sample data; what is there already is left alone."""
    with reachable_database(settings_for(home)) as url:
        added = run(_seed(url))
    if as_json:
        print_json({"events": added})
    else:
        click.echo(f"Sample data: {added} events added." if added else "Sample data: already there.")


async def _seed(url: URL) -> int:
    database = Database(url)
    async with appending(database) as appender:
        added = await sample_data.seed(database, appender)
    await database.close()
    return added


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Also where the database is not on this machine.")
@home_option
def reset(yes: bool, force: bool, home: Path | None) -> None:
    """Delete every event and every table, and start anew."""
    with plain_errors():
        settings = settings_for(home)
        _require_local(settings, force)
        click.echo("This deletes the whole ledger: every event, every table. There is no way back.")
        if not yes and not _says_yes():
            click.echo("Cancelled.")
            return
        settings.home.mkdir(parents=True, exist_ok=True)
        # A service at work on this home would go on with what it remembers of the old log.
        with exclusive_home(settings.home, "ledger reset"), owners_database(settings) as url:
            origin, note = run(_last_sealed(url))
            run(bring_up_to_date(url, from_base=True))
            # Whoever holds its last checkpoint must not take the next log for its continuation.
            signing_files(settings).archive_checkpoint(origin, note)
    click.echo("The ledger is empty.")


async def _last_sealed(url: URL) -> tuple[str | None, bytes | None]:
    """Origin and last checkpoint of the log that is there, where one is."""
    database = Database(url)
    try:
        async with database.connection() as connection:
            if await connection.fetchval("SELECT to_regclass('ledger.log_checkpoint')") is None:
                return None, None
            row = await connection.fetchrow("SELECT origin, note FROM ledger.log_checkpoint")
            return (row["origin"], row["note"]) if row is not None else (None, None)
    finally:
        await database.close()


def _says_yes() -> bool:
    try:
        answer: str = click.prompt("Type yes to go on", default="no", show_default=False)
    except click.Abort:
        # Nobody is there to answer.
        return False
    return answer == "yes"


def _require_local(settings: Settings, force: bool) -> None:
    for url in (settings.database_url, settings.direct_database_url):
        host = str(url.query.get("host") or url.host or "") if url is not None else ""
        if host and host not in LOOPBACK and not host.startswith(os.sep) and not force:
            fail(f"the database is at {host}, not on this machine; to reset it even so, add --force")
