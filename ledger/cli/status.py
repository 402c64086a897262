"""ledger status: the positions of the log, the read models and the seal."""

from datetime import datetime
from pathlib import Path

import click
import msgspec
from sqlalchemy import URL

from ledger.audit import tree_store
from ledger.audit.reverification import read_reverification
from ledger.cli.databases import service_url
from ledger.cli.event_loop import run_async
from ledger.cli.options import home_option, json_option
from ledger.cli.output import counted, echo, print_json
from ledger.cli.settings import settings_for
from ledger.database import Database
from ledger.database.migrations import current_revision
from ledger.database.service_sessions import WORKERS, connected_services
from projections.checkpoint import Failure
from projections.queries import projection_status


class Status(msgspec.Struct):
    """The positions of the log, the read models and the seal; what `--json` prints.

    `projections` is the state of the read models; `stopped`: no worker is connected; `unknown`: a transaction-mode
    pooler hides whether one is. `services` are the commands that are connected, None if that is hidden.
    """

    revision: str | None
    head: int
    position: int
    lag_events: int
    lag_seconds: float
    projections: str
    services: list[str] | None
    last_error: Failure | None
    origin: str | None
    sealed: int
    seal_refusal: str | None
    reverified: int
    last_full_pass: datetime | None
    log_changed: str | None


@click.command()
@home_option
@json_option
def status(home: Path | None, as_json: bool) -> None:
    """Show the positions of the log, the read models and the seal."""
    with service_url(settings_for(home)) as url:
        read = run_async(_read_status(url))
    if as_json:
        print_json(read)
    else:
        _print_status(read)


def _print_status(status: Status) -> None:
    echo(f"Log: {counted(status.head, 'event')}. Database at revision {status.revision}.")
    echo(f"Services: {describe_services(status.services)}.")
    lag = counted(status.lag_events, "event")
    echo(f"Read models: {status.projections}, at position {status.position:,}, {lag} behind.")
    if status.last_error is not None:
        error = status.last_error
        echo(f"Last error: {error.type} at position {error.position:,}: {error.error}")
    if status.seal_refusal is not None:
        echo(f"NOT SEALED after position {status.sealed:,}: {status.seal_refusal}")
    elif status.origin is not None:
        echo(f"Sealed: {counted(status.sealed, 'event')}, origin {status.origin}.")
    if status.log_changed is not None:
        echo(f"LOG CHANGED: {status.log_changed}")
    elif status.origin is not None:
        last = f"{status.last_full_pass:%Y-%m-%d %H:%M}Z" if status.last_full_pass else "none yet"
        echo(f"Re-verified: up to position {status.reverified:,}; last full pass: {last}.")
    if status.projections == "paused":
        echo(
            "Next: fix the cause and run `ledger projections retry|skip`; if a read model was changed by hand, "
            "run `ledger rebuild`."
        )


async def _read_status(url: URL) -> Status:
    async with Database(url) as database:
        async with database.connection() as connection:
            revision = await current_revision(connection)
        async with database.connection() as driver:
            read_models = await projection_status(driver)
            seal = await tree_store.read_seal_status(driver)
            reverification = await read_reverification(driver)
        services = await connected_services(database)
    return Status(
        revision=revision,
        head=read_models.head,
        position=read_models.position,
        lag_events=read_models.lag_events,
        lag_seconds=read_models.lag_seconds,
        projections=_worker_state(services) if read_models.status == "running" else read_models.status,
        services=services,
        last_error=read_models.failure,
        origin=seal.origin,
        sealed=seal.size,
        seal_refusal=seal.refusal,
        reverified=reverification.position,
        last_full_pass=reverification.last_full_pass_at,
        log_changed=reverification.problem(),
    )


def describe_services(services: list[str] | None) -> str:
    """Return in words which services are connected to the database, and how to start one."""
    if services is None:
        return "unknown, since a transaction-mode pooler hides whether one is connected"
    if not services:
        return "none is connected; start `ledger up`, or `ledger serve` and `ledger worker`"
    return ", ".join(f"`{name}`" for name in services)


def _worker_state(services: list[str] | None) -> str:
    if services is None:
        return "unknown"
    return "running" if set(services) & set(WORKERS) else "stopped"
