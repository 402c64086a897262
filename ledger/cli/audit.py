"""ledger audit: what only an operator may decide about the sealed log."""

import getpass
from pathlib import Path

import click
from sqlalchemy import URL

from ledger.audit.rollback import accept_rollback as accept
from ledger.cli.common import (
    appending,
    home_option,
    json_option,
    owners_database,
    print_json,
    require_migrated,
    run,
    settings_for,
    signing_files,
)
from ledger.config import Settings
from ledger.database import Database
from ledger.domain.ledger_events import RollbackAccepted


@click.group()
def audit() -> None:
    """Decide about the sealed log."""


@audit.command("accept-rollback")
@click.option("--reason", required=True, help="Why: it is recorded.")
@home_option
@json_option
def accept_rollback(reason: str, home: Path | None, as_json: bool) -> None:
    """Go on although the log does not extend what was signed.

    The last checkpoint is put away, and the whole log is sealed anew under another origin, with its own verifier key:
    auditors of the old one can see that it was given up. The decision is recorded as an event, with who and why.
    """
    if not 1 <= len(reason) <= 500:
        raise click.UsageError("--reason must have 1 to 500 characters")
    settings = settings_for(home)
    with owners_database(settings) as url:
        decided = run(_accept(settings, url, reason))
    if as_json:
        print_json(decided)
    else:
        click.echo(
            f"Given up: {decided.origin} at {decided.size:,} events. The log is sealed anew under another origin;"
        )
        click.echo("give your auditors the new verifier key: GET /v1/log/key.")


async def _accept(settings: Settings, url: URL, reason: str) -> RollbackAccepted:
    database = Database(url)
    try:
        await require_migrated(database)
        async with appending(database) as appender:
            return await accept(database, appender, signing_files(settings), by=getpass.getuser(), reason=reason)
    finally:
        await database.close()
