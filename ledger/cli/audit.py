"""ledger audit accept-rollback: give up a sealed log that the database no longer extends."""

from pathlib import Path

import click
from sqlalchemy import URL

from ledger.audit.rollback import accept_rollback as accept
from ledger.cli.databases import database_folder, migrated_database, open_appender, owner_url
from ledger.cli.event_loop import run_async
from ledger.cli.options import home_option, json_option, reason_option
from ledger.cli.output import counted, echo, print_json
from ledger.cli.settings import settings_for, signing_files
from ledger.cli.user import command_line_actor, user_name
from ledger.config import Settings
from ledger.domain.ledger_events import RollbackAccepted


@click.group()
def audit() -> None:
    """Recover the sealed log after a rollback."""


@audit.command("accept-rollback")
@reason_option
@home_option
@json_option
def accept_rollback(reason: str, home: Path | None, as_json: bool) -> None:
    """Accept that signed events are lost.

    Use it if the sealer refuses to sign because the log does not extend its last checkpoint, for example after a
    restore from an old backup. That checkpoint is archived, and the log is sealed under a new origin and verifier key,
    so auditors of the old origin can see that it was given up. The decision is recorded as an event, with your user
    name and the reason.
    """
    settings = settings_for(home)
    with owner_url(settings) as url:
        decision = run_async(_accept(settings, url, reason))
    if as_json:
        print_json(decision)
    else:
        sealed = counted(decision.size, "sealed event")
        echo(f"Gave up {decision.origin} at {sealed}. The log will be sealed under a new origin.")
        echo("Give your auditors its verifier key: GET /v1/log/key.")


async def _accept(settings: Settings, url: URL, reason: str) -> RollbackAccepted:
    async with migrated_database(url) as database, open_appender(database) as appender:
        folder = await database_folder(database, settings)
        files = signing_files(settings, folder)
        decision = await accept(database, appender, files, by=user_name(), reason=reason, actor=command_line_actor())
        folder.claim()
        return decision
