"""ledger status and ledger doctor: where the ledger stands, and what is wrong with it."""

import sys
from pathlib import Path
from typing import Literal

import click
import msgspec
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger import roles
from ledger.audit import store
from ledger.cli.common import (
    explain,
    home_option,
    json_option,
    print_json,
    reachable_database,
    read_settings_for,
    run,
    settings_for,
)
from ledger.config import ConfigError, Settings
from ledger.database import database, driver_connection, make_engine
from ledger.embedded import EmbeddedError
from ledger.schema import current_revision, expected_revision
from projections.checkpoint import Failure
from projections.queries import projection_status

POSTGRES_VERSION_MIN = 15


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


class Check(msgspec.Struct):
    """One thing the doctor looked at. A warning is something to mend, with which the ledger works all the same."""

    name: str
    verdict: Literal["ok", "warning", "problem", "unknown"]
    says: str


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
    engine = make_engine(url)
    try:
        async with engine.connect() as connection:
            revision = await current_revision(connection)
        async with driver_connection(engine) as driver:
            standing = await projection_status(driver)
            sealing = await store.read_standing(driver)
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
        await engine.dispose()


@click.command()
@home_option
@json_option
def doctor(home: Path | None, as_json: bool) -> None:
    """Look for what is wrong: settings, connection, database user, migrations, worker, sealer.

    Exit code 1 when something is; a warning is none.
    """
    checks = _examine(home)
    if as_json:
        print_json(checks)
    else:
        for check in checks:
            click.echo(f"{check.verdict.upper():8} {check.name}: {check.says}")
    sys.exit(1 if any(check.verdict == "problem" for check in checks) else 0)


def _examine(home: Path | None) -> list[Check]:
    try:
        settings = read_settings_for(home)
    except ConfigError as error:
        return [Check("settings", "problem", str(error))]
    checks = [Check("settings", "ok", _describe(settings))]
    try:
        with database(settings) as found:
            assert found.database_url is not None
            checks += run(_examine_database(found.database_url, is_embedded=settings.database_url is None))
    except EmbeddedError as error:
        checks.append(Check("connection", "problem", str(error)))
    return checks


def _describe(settings: Settings) -> str:
    if settings.database_url is None:
        return f"the embedded PostgreSQL in {settings.home.resolve()}"
    return f"the database {settings.database_url.render_as_string(hide_password=True)}"


async def _examine_database(url: URL, *, is_embedded: bool) -> list[Check]:
    engine = make_engine(url)
    checks: list[Check] = []
    try:
        await _examine_step_by_step(engine, checks, is_embedded=is_embedded)
    except Exception as error:  # noqa: BLE001 (whatever it is, the doctor's work is to explain it)
        checks.append(Check("connection" if not checks else "database", "problem", explain(error)))
    finally:
        await engine.dispose()
    return checks


async def _examine_step_by_step(engine: AsyncEngine, checks: list[Check], *, is_embedded: bool) -> None:
    async with engine.connect() as connection:
        version = int(await connection.scalar(text("SHOW server_version_num")) or 0)
        checks.append(Check("connection", "ok", f"PostgreSQL {version // 10_000}.{version % 10_000} answers"))
        if version // 10_000 < POSTGRES_VERSION_MIN:
            says = f"PostgreSQL {POSTGRES_VERSION_MIN} or later is needed; this one is {version // 10_000}"
            checks.append(Check("version", "problem", says))
    async with driver_connection(engine) as driver:
        user = await roles.read_standing(driver)
    if user is not None:
        checks.append(_examine_user(user, is_embedded=is_embedded))
    async with engine.connect() as connection:
        current, expected = await current_revision(connection), expected_revision()
    if current != expected:
        at = f"the database is at revision {current}" if current else "the database is empty"
        checks.append(Check("migrations", "problem", f"{at}, this release needs {expected}: run `ledger migrate`"))
        return
    checks.append(Check("migrations", "ok", f"at revision {current}"))
    async with driver_connection(engine) as driver:
        standing = await projection_status(driver)
    if trouble := standing.trouble():
        checks.append(Check("worker", "problem", f"the read models are {trouble}"))
    elif standing.lag_events and standing.lag_seconds > 5:
        says = f"{standing.lag_events:,} events wait since {standing.lag_seconds:.0f} s: start `ledger worker`"
        checks.append(Check("worker", "problem", says))
    else:
        says = f"the read models are at position {standing.position:,} of {standing.head:,}"
        checks.append(Check("worker", "ok", says))
    async with driver_connection(engine) as driver:
        sealing = await store.read_standing(driver)
    if trouble := sealing.trouble():
        checks.append(Check("sealer", "problem", trouble))
    else:
        checks.append(Check("sealer", "ok", f"{sealing.size:,} of {sealing.head:,} events are sealed"))


def _examine_user(user: roles.Standing, *, is_embedded: bool) -> Check:
    if problem := user.problem():
        return Check("user", "problem", problem)
    if user.is_superuser and is_embedded:
        says = (
            f"the embedded PostgreSQL has one user, its superuser {user.name}: whoever can read its home may change "
            "what is in the log. Where that will not do, use a PostgreSQL of your own (README, Database roles)"
        )
        return Check("user", "warning", says)
    if warning := user.warning():
        return Check("user", "warning", warning)
    return Check("user", "ok", f"{user.name} is a member of ledger_service and may do what the service needs")
