"""Databases of the commands: the URL to use, migrated databases, appenders, pools of a service."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import NamedTuple

from sqlalchemy import URL

from ledger.cli.output import exit_on_error, fail
from ledger.cli.user import command_line_actor
from ledger.config import Settings
from ledger.database import STATEMENT_SECONDS_MAX, Database
from ledger.database.location import located_database
from ledger.database.migrations import current_revision, expected_revision, migrate
from ledger.log.appender import Appender
from ledger.log.key_events import record_missing_keys
from ledger.log.notifications import notify_other_processes


@contextmanager
def service_url(settings: Settings) -> Iterator[URL]:
    """Yield DATABASE_URL, or the URL of the embedded PostgreSQL, which runs until exit; errors end the command."""
    with exit_on_error(), located_database(settings) as located:
        assert located.database_url is not None
        yield located.database_url


@contextmanager
def owner_url(settings: Settings) -> Iterator[URL]:
    """Yield the URL for commands of the tables' owner: DIRECT_DATABASE_URL if it is set."""
    with service_url(settings) as url:
        yield settings.direct_database_url or url


@asynccontextmanager
async def migrated_database(url: URL, *, needs_session: bool = False) -> AsyncIterator[Database]:
    """Yield the database, or end the command if it cannot be used.

    Args:
        url: of the database.
        needs_session: also end the command if a transaction-mode pooler serves the connection: temporary tables and
            session locks do not work through one.
    """
    async with Database(url) as database:
        await require_migrated(database)
        if needs_session and database.is_pooled:
            fail(
                "this command needs a session, and the database is behind a transaction-mode pooler; set "
                "DIRECT_DATABASE_URL to the server itself (Supabase: port 5432; Neon: the host without -pooler; "
                "otherwise PostgreSQL's own host and port)"
            )
        yield database


async def require_migrated(database: Database) -> None:
    """End the command if the database is not at this release's revision."""
    async with database.connection() as connection:
        current, expected = await current_revision(connection), expected_revision()
    if current != expected:
        fail(migration_problem(current, expected))


def migration_problem(current: str | None, expected: str) -> str:
    """Return the message for a database at another revision than this release's; None: it has no tables yet."""
    state = f"the database is at revision {current}" if current else "the database is empty"
    return f"{state}, and this release needs revision {expected}: run `ledger migrate`"


@asynccontextmanager
async def open_appender(database: Database) -> AsyncIterator[Appender]:
    """Yield an appender, and notify the running service of the new events on exit."""
    async with Appender(database) as appender:
        yield appender
    await notify_other_processes(database)


async def migrate_database(url: URL, *, from_base: bool = False) -> None:
    """Migrate the database to this release's revision; `from_base` first removes every table.

    API keys that an earlier release created are recorded in the log.
    """
    async with Database(url) as database:
        if from_base:
            await migrate(database, to="base")
        await migrate(database)
        async with database.connection() as connection:
            await record_missing_keys(connection, command_line_actor())


class ServiceDatabases(NamedTuple):
    """The connection pools of a running service: `appends` is for appends alone, so that readers cannot exhaust it.

    `direct` and `replica` are None if they are the same server as `main`.
    """

    main: Database
    appends: Database
    direct: Database | None
    replica: Database | None


@asynccontextmanager
async def service_databases(settings: Settings, url: URL) -> AsyncIterator[ServiceDatabases]:
    """Yield the databases of a service, all with the service's statement timeout."""
    async with AsyncExitStack() as stack:

        async def open_database(url: URL, pool_size: int = 10) -> Database:
            database = Database(url, pool_size=pool_size, statement_seconds_max=STATEMENT_SECONDS_MAX)
            return await stack.enter_async_context(database)

        async def open_other(other: URL | None, pool_size: int) -> Database | None:
            # DIRECT_DATABASE_URL may name the same server with the owner's user: that user is for the owner's
            # commands only, and the service never connects as it.
            if other is None or (other.host, other.port) == (url.host, url.port):
                return None
            return await open_database(other, pool_size)

        yield ServiceDatabases(
            await open_database(url),
            await open_database(url, pool_size=2),
            await open_other(settings.direct_database_url, pool_size=1),
            await open_other(settings.replica_database_url, pool_size=10),
        )
