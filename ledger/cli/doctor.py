"""ledger doctor: what is wrong with the ledger, and what to do about it."""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal

import click
import msgspec
from sqlalchemy import URL, text

from ledger.audit import tree_store
from ledger.cli.common import home_option, json_option, print_json, read_settings_for, run
from ledger.cli.explain import explain
from ledger.config import ConfigError, Settings
from ledger.database import STATEMENT_SECONDS_MAX, Database, roles
from ledger.database.location import located_database
from ledger.database.migrations import current_revision, expected_revision
from ledger.embedded import EmbeddedError
from projections.queries import projection_status

POSTGRES_VERSION_MIN = 15

POOLED = (
    "DATABASE_URL leads to a pooler in transaction mode, which serves; but `ledger verify`, `rebuild` and `replay` "
    "cannot work through it, and new events of other processes are looked for each second"
)
DIRECT = "to the server itself (Supabase: port 5432; Neon: the host without -pooler)"


class Check(msgspec.Struct):
    """One thing the doctor looked at. A warning is something to mend, with which the ledger works all the same."""

    name: str
    verdict: Literal["ok", "warning", "problem"]
    says: str


@click.command()
@home_option
@json_option
def doctor(home: Path | None, as_json: bool) -> None:
    """Look for what is wrong: settings, connections, database user, migrations, worker, sealer.

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
        with located_database(settings) as found:
            checks += run(examine_databases(found, is_embedded=settings.database_url is None))
    except EmbeddedError as error:
        checks.append(Check("connection", "problem", str(error)))
    return checks


def _describe(settings: Settings) -> str:
    if settings.database_url is None:
        return f"the embedded PostgreSQL in {settings.home.resolve()}"
    return f"the database {settings.database_url.render_as_string(hide_password=True)}"


async def examine_databases(settings: Settings, *, is_embedded: bool = False) -> list[Check]:
    """Look through every way to the database that is configured."""
    url, direct_url, replica_url = settings.database_url, settings.direct_database_url, settings.replica_database_url
    assert url is not None
    has_direct_url = direct_url not in (None, url)
    checks: list[Check] = []

    async def examine_main(database: Database, checks: list[Check]) -> None:
        await _examine_step_by_step(database, checks, is_embedded=is_embedded)
        if database.is_pooled and not has_direct_url:
            checks.append(Check("direct connection", "problem", f"{POOLED}; set DIRECT_DATABASE_URL {DIRECT}"))

    await _look(url, "connection", examine_main, checks)
    if direct_url is not None and has_direct_url:
        await _look(direct_url, "direct connection", _examine_direct, checks)
    if replica_url is not None:
        await _look(replica_url, "replica", _examine_replica, checks)
    return checks


async def _look(
    url: URL, name: str, examine: Callable[[Database, list[Check]], Awaitable[None]], checks: list[Check]
) -> None:
    """Have one way examined; whatever fails there is explained under its name."""
    try:
        database = Database(url, statement_seconds_max=STATEMENT_SECONDS_MAX)
    except ConfigError as error:
        checks.append(Check(name, "problem", str(error)))
        return
    try:
        await examine(database, checks)
    except Exception as error:  # noqa: BLE001 (whatever it is, the doctor's work is to explain it)
        is_connected = any(check.name == name for check in checks)
        checks.append(Check("database" if is_connected else name, "problem", explain(error)))
    finally:
        await database.close()


async def _examine_direct(database: Database, checks: list[Check]) -> None:
    async with database.engine.connect():
        pass
    if database.is_pooled:
        says = f"DIRECT_DATABASE_URL leads to a pooler in transaction mode too; it must lead {DIRECT}"
        checks.append(Check("direct connection", "problem", says))
    else:
        checks.append(Check("direct connection", "ok", "it stays with one server process"))


async def _examine_replica(database: Database, checks: list[Check]) -> None:
    async with database.connection() as driver:
        if not await driver.fetchval("SELECT pg_is_in_recovery()"):
            says = "REPLICA_DATABASE_URL leads to a server that is no replica: it may show another log"
            checks.append(Check("replica", "problem", says))
            return
        standing = await projection_status(driver)
    checks.append(Check("replica", "ok", f"its log is at position {standing.head:,}"))


async def _examine_step_by_step(database: Database, checks: list[Check], *, is_embedded: bool) -> None:
    async with database.engine.connect() as connection:
        version = int(await connection.scalar(text("SHOW server_version_num")) or 0)
        checks.append(Check("connection", "ok", f"PostgreSQL {version // 10_000}.{version % 10_000} answers"))
        if version // 10_000 < POSTGRES_VERSION_MIN:
            says = f"PostgreSQL {POSTGRES_VERSION_MIN} or later is needed; this one is {version // 10_000}"
            checks.append(Check("version", "problem", says))
    async with database.connection() as driver:
        user = await roles.read_role_status(driver)
    if user is not None:
        checks.append(_examine_user(user, is_embedded=is_embedded))
    async with database.engine.connect() as connection:
        current, expected = await current_revision(connection), expected_revision()
    if current != expected:
        at = f"the database is at revision {current}" if current else "the database is empty"
        checks.append(Check("migrations", "problem", f"{at}, this release needs {expected}: run `ledger migrate`"))
        return
    checks.append(Check("migrations", "ok", f"at revision {current}"))
    async with database.connection() as driver:
        standing = await projection_status(driver)
    if trouble := standing.trouble():
        checks.append(Check("worker", "problem", f"the read models are {trouble}"))
    elif standing.lag_events and standing.lag_seconds > 5:
        says = f"{standing.lag_events:,} events wait since {standing.lag_seconds:.0f} s: start `ledger worker`"
        checks.append(Check("worker", "problem", says))
    else:
        says = f"the read models are at position {standing.position:,} of {standing.head:,}"
        checks.append(Check("worker", "ok", says))
    async with database.connection() as driver:
        sealing = await tree_store.read_seal_status(driver)
    if trouble := sealing.problem():
        checks.append(Check("sealer", "problem", trouble))
    else:
        checks.append(Check("sealer", "ok", f"{sealing.size:,} of {sealing.head:,} events are sealed"))


def _examine_user(user: roles.RoleStatus, *, is_embedded: bool) -> Check:
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
