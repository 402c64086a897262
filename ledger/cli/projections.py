"""ledger projections retry and skip: resume read models that an event has paused."""

from pathlib import Path

import click
from sqlalchemy import URL

from ledger.cli.databases import migrated_database, open_appender, service_url
from ledger.cli.event_loop import run_async
from ledger.cli.options import home_option, json_option, reason_option
from ledger.cli.output import echo, print_json
from ledger.cli.settings import settings_for
from ledger.cli.user import command_line_actor, user_name
from ledger.domain.ledger_events import ProjectionSkipped
from projections import skips
from projections.checkpoint import GROUP
from projections.tables import NAMES

name_argument = click.argument("name", type=click.Choice((GROUP, *NAMES)), metavar="NAME")


@click.group()
def projections() -> None:
    """Resume the read models after an event that cannot be applied."""


@projections.command()
@name_argument
@home_option
@json_option
def retry(name: str, home: Path | None, as_json: bool) -> None:
    """Retry the event that paused the read models.

    Fix the cause first. NAME is read_models, campaigns, content_assets, agent_jobs or budget_entries; the four read
    models advance together, so each name selects them all.
    """
    with service_url(settings_for(home)) as url:
        run_async(_retry(url))
    if as_json:
        print_json({"name": name, "status": "running"})
    else:
        echo("The worker retries the event now; see `ledger status`.")


async def _retry(url: URL) -> None:
    async with migrated_database(url) as database:
        await skips.retry(database)


@projections.command()
@name_argument
@reason_option
@home_option
@json_option
def skip(name: str, reason: str, home: Path | None, as_json: bool) -> None:
    """Skip the event that paused the read models.

    NAME is read_models, campaigns, content_assets, agent_jobs or budget_entries; the four read models advance together,
    so each name selects them all. They lack the event's changes until a release can apply it and `ledger rebuild` is
    run. The skip is recorded as an event, with your user name and the reason.
    """
    with service_url(settings_for(home)) as url:
        decision = run_async(_skip(url, reason))
    if as_json:
        print_json(decision)
    else:
        echo(
            f"Skipped {decision.event_type} at position {decision.position:,}. "
            "`ledger verify` will keep reporting this skip."
        )


async def _skip(url: URL, reason: str) -> ProjectionSkipped:
    async with migrated_database(url) as database, open_appender(database) as appender:
        return await skips.skip(database, appender, by=user_name(), reason=reason, actor=command_line_actor())
