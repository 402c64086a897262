"""ledger doctor: checks of settings, connections, user, migrations, guards, worker and sealer."""

import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import click
import msgspec
from sqlalchemy import URL

from ledger.audit import tree_store
from ledger.audit.home import find_folder
from ledger.audit.note import NoteError
from ledger.audit.reverification import read_reverification
from ledger.audit.sealer import OTHER_KEY_ADVICE
from ledger.audit.signing_files import SigningFiles, key_mismatch
from ledger.cli.event_loop import run_async
from ledger.cli.explain import explain
from ledger.cli.key_files import exposures
from ledger.cli.options import home_option, json_option
from ledger.cli.output import counted, echo, print_json
from ledger.cli.settings import read_settings_for, signing_files
from ledger.cli.status import describe_services
from ledger.config import ConfigError, Settings
from ledger.database import STATEMENT_SECONDS_MAX, Connection, Database, roles
from ledger.database.guards import describe_faults, find_guard_faults
from ledger.database.location import NoDatabaseError, located_database
from ledger.database.migrations import current_revision, revision_problem
from ledger.database.service_sessions import WORKERS, connected_services
from ledger.domain.errors import LedgerError
from ledger.embedded import EmbeddedError
from ledger.log.log_clock import LEAD_SECONDS_MIN, read_lead
from projections.queries import projection_status

POSTGRES_VERSION_MIN = 15
LAG_SECONDS_MAX = 5
"""After this time without progress the doctor reports that no worker runs."""

POOLED = (
    "DATABASE_URL leads to a pooler in transaction mode. The service works through it, but `ledger verify`, `rebuild` "
    "and `replay` do not, and events of other processes are noticed only once a second"
)
EMBEDDED_SUPERUSER = (
    "the embedded PostgreSQL has one user, its superuser {user}: anyone who can read its files can change the log. If "
    "that is not acceptable, use a database of your own (docs/guides/setup.md) and a service user "
    "(docs/guides/operators.md, Database roles)"
)
NEVER_SEALED = "no event has been sealed yet, so a change of the log would not be detected. Next: {}"
KEY_IS_GONE = (
    "{} is gone, although the log was sealed from here ({} exists): new events are not sealed. Next: restore the file "
    "from a backup of the home; if it is lost, see docs/guides/auditors.md, For operators"
)
DIRECT = "to the server itself (Supabase: port 5432; Neon: the host without -pooler)"


class Check(msgspec.Struct):
    """The result of one check. The ledger works despite a warning, but not despite a problem."""

    name: str
    verdict: Literal["ok", "warning", "problem"]
    says: str


@click.command()
@home_option
@json_option
def doctor(home: Path | None, as_json: bool) -> None:
    """Find out what is wrong with the ledger and how to fix it.

    Checks settings, connections, database user, migrations, the guards of the tables, worker and sealer. Each problem
    is printed with its remedy. The exit code is 1 if there is a problem; warnings do not count.
    """
    checks = _examine(home)
    if as_json:
        print_json(checks)
    else:
        for check in checks:
            echo(f"{check.verdict.upper():8} {check.name}: {check.says}", keep="\n")
    sys.exit(1 if any(check.verdict == "problem" for check in checks) else 0)


def _examine(home: Path | None) -> list[Check]:
    try:
        settings = read_settings_for(home)
    except ConfigError as error:
        return [Check("settings", "problem", str(error))]
    checks = [Check("settings", "ok", _describe_database(settings))]
    checks += [Check("key files", "warning", remark) for remark in exposures(settings)]
    try:
        with located_database(settings) as located:
            checks += run_async(examine_databases(located, is_embedded=settings.database_url is None))
    except (EmbeddedError, NoDatabaseError) as error:
        checks.append(Check("connection", "problem", str(error)))
    return checks


def _describe_database(settings: Settings) -> str:
    if settings.database_url is None:
        return f"the embedded PostgreSQL in {settings.home.resolve()}"
    return f"the database {settings.database_url.render_as_string(hide_password=True)}"


async def examine_databases(settings: Settings, *, is_embedded: bool = False) -> list[Check]:
    """Check every database URL of the settings; `is_embedded` if the main one is the embedded PostgreSQL's."""
    url, direct_url, replica_url = settings.database_url, settings.direct_database_url, settings.replica_database_url
    assert url is not None
    has_direct_url = direct_url not in (None, url)
    checks: list[Check] = []

    async def examine_main(database: Database, checks: list[Check]) -> None:
        await _examine_step_by_step(database, checks, settings, is_embedded=is_embedded)
        if database.is_pooled and not has_direct_url:
            checks.append(Check("direct connection", "problem", f"{POOLED}; set DIRECT_DATABASE_URL {DIRECT}"))

    await _examine_url(url, "connection", examine_main, checks)
    if direct_url is not None and has_direct_url:
        await _examine_url(direct_url, "direct connection", _examine_direct, checks)
    if replica_url is not None:
        await _examine_url(replica_url, "replica", _examine_replica, checks)
    return checks


async def _examine_url(
    url: URL, name: str, examine: Callable[[Database, list[Check]], Awaitable[None]], checks: list[Check]
) -> None:
    """Run `examine` on one database, and add its results to `checks`; an error becomes a problem called `name`."""
    try:
        database = Database(url, statement_seconds_max=STATEMENT_SECONDS_MAX)
    except ConfigError as error:
        checks.append(Check(name, "problem", str(error)))
        return
    async with database:
        try:
            await examine(database, checks)
        except Exception as error:  # noqa: BLE001 (the doctor explains every failure)
            is_connected = any(check.name == name for check in checks)
            checks.append(
                Check(
                    "database" if is_connected else name,
                    "problem",
                    str(error) if isinstance(error, LedgerError) else explain(error),
                )
            )


async def _examine_direct(database: Database, checks: list[Check]) -> None:
    async with database.connection():
        pass
    if database.is_pooled:
        problem = f"DIRECT_DATABASE_URL leads to a pooler in transaction mode too; it must lead {DIRECT}"
        checks.append(Check("direct connection", "problem", problem))
    else:
        checks.append(Check("direct connection", "ok", "leads to the server itself, not to a pooler"))


async def _examine_replica(database: Database, checks: list[Check]) -> None:
    async with database.connection() as connection:
        if not await connection.fetchval("SELECT pg_is_in_recovery()"):
            problem = "REPLICA_DATABASE_URL leads to a server that is no replica, and may hold another log"
            checks.append(Check("replica", "problem", problem))
            return
        status = await projection_status(connection)
    checks.append(Check("replica", "ok", f"its log is at position {status.head:,}"))


async def _examine_step_by_step(
    database: Database, checks: list[Check], settings: Settings, *, is_embedded: bool
) -> None:
    async with database.connection() as connection:
        version = int(await connection.fetchval("SHOW server_version_num"))
    checks += _check_version(version)
    async with database.connection() as driver:
        user = await roles.read_role_status(driver)
    if user is not None:
        checks.append(_check_user(user, is_embedded=is_embedded))
    async with database.connection() as connection:
        current = await current_revision(connection)
    if problem := revision_problem(current):
        checks.append(Check("migrations", "problem", problem))
        return
    checks.append(Check("migrations", "ok", f"at revision {current}"))
    services = await connected_services(database)
    checks.append(_check_services(services))
    async with database.connection() as driver:
        folder = await find_folder(driver, settings.home, settings.log_key, is_embedded=is_embedded)
        checks.append(await _check_guards(driver, str(current)))
        checks.append(await _check_worker(driver, services))
        checks.append(await _check_sealer(driver, signing_files(settings, folder)))
        checks += await _check_clock(driver)
        checks.append(await _check_log(driver))


def _check_version(version: int) -> list[Check]:
    """Check PostgreSQL's `server_version_num`, such as 150004."""
    major, minor = divmod(version, 10_000)
    checks = [Check("connection", "ok", f"PostgreSQL {major}.{minor} answers")]
    if major < POSTGRES_VERSION_MIN:
        problem = f"the server runs PostgreSQL {major}; {POSTGRES_VERSION_MIN} or later is needed"
        checks.append(Check("version", "problem", problem))
    return checks


def _check_user(user: roles.RoleStatus, *, is_embedded: bool) -> Check:
    if problem := user.problem():
        return Check("user", "problem", problem)
    if user.is_superuser and is_embedded:
        return Check("user", "warning", EMBEDDED_SUPERUSER.format(user=user.name))
    if warning := user.warning():
        return Check("user", "warning", warning)
    return Check("user", "ok", f"{user.name} is a member of ledger_service and has the service's privileges")


async def _check_guards(connection: Connection, revision: str) -> Check:
    if faults := await find_guard_faults(connection):
        return Check("guards", "problem", describe_faults(faults))
    return Check("guards", "ok", f"triggers, constraints, privileges and policies are those of revision {revision}")


def _check_services(services: list[str] | None) -> Check:
    return Check("services", "warning" if services == [] else "ok", describe_services(services))


async def _check_worker(connection: Connection, services: list[str] | None) -> Check:
    status = await projection_status(connection)
    if problem := status.problem():
        return Check("worker", "problem", f"the read models are {problem}")
    if status.lag_events and status.lag_seconds > LAG_SECONDS_MAX:
        lag = f"the read models are {counted(status.lag_events, 'event')} behind, for {status.lag_seconds:,.0f} s now"
        return Check("worker", "problem", f"{lag}: start `ledger worker`")
    position = f"the read models are at position {status.position:,} of {status.head:,}"
    if services is not None and not set(services) & set(WORKERS):
        return Check("worker", "warning", f"{position}, and no worker is connected to update them")
    return Check("worker", "ok", position)


async def _check_sealer(connection: Connection, files: SigningFiles) -> Check:
    status = await tree_store.read_seal_status(connection)
    try:
        signer = files.read_signer()
    except NoteError as error:
        return Check("sealer", "problem", str(error))
    if signer is not None and (difference := key_mismatch(status.verifier_key, signer.verifier)) is not None:
        return Check("sealer", "problem", f"{difference}. Next: {OTHER_KEY_ADVICE}")
    if problem := status.problem():
        return Check("sealer", "problem", problem)
    if signer is None and status.verifier_key is not None and files.checkpoint_file.exists():
        return Check("sealer", "problem", KEY_IS_GONE.format(files.key_file, files.checkpoint_file))
    if status.verifier_key is None and status.head:
        return Check("sealer", "warning", NEVER_SEALED.format(_start_sealing(signer is not None, files)))
    return Check("sealer", "ok", f"{status.size:,} of {status.head:,} events are sealed")


def _start_sealing(has_key: bool, files: SigningFiles) -> str:
    if has_key:
        return f"start `ledger up` or `ledger worker`, which seal with {files.key_file}"
    return (
        f"start `ledger up`, which creates {files.key_file}; or create the key on the machine of `ledger worker` "
        "(docs/guides/auditors.md, For operators), and start that"
    )


async def _check_clock(connection: Connection) -> list[Check]:
    lead = await read_lead(connection, datetime.now(UTC))
    if lead <= LEAD_SECONDS_MIN:
        return []
    warning = (
        f"the time of the last event is {lead:,.0f} s ahead of this machine's clock: compare that clock with the "
        "database server's. Until both have caught up, the log's clock runs at half speed, so holds last longer"
    )
    return [Check("clock", "warning", warning)]


async def _check_log(connection: Connection) -> Check:
    reverification = await read_reverification(connection)
    if problem := reverification.problem():
        return Check("log", "problem", problem)
    return Check("log", "ok", f"the sealed events were hashed again up to position {reverification.position:,}")
