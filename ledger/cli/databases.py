"""Databases of the commands: the URL to use, migrated databases, appenders, pools of a service."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import NamedTuple

import click
from sqlalchemy import URL

from ledger.audit.home import DatabaseFolder, find_folder
from ledger.cli.output import exit_on_error, fail
from ledger.cli.user import command_line_actor
from ledger.config import Settings
from ledger.database import STATEMENT_SECONDS_MAX, Database
from ledger.database.location import LocatedServer, located_server
from ledger.database.migrations import current_revision, migrate, revision_problem
from ledger.embedded import EmbeddedServer, Supervisor
from ledger.log.appender import Appender
from ledger.log.key_events import record_missing_keys
from ledger.log.notifications import notify_other_processes
from ledger.outage import Outage


@contextmanager
def service_server(settings: Settings, *, create: bool = False) -> Iterator[LocatedServer]:
    """Yield the configured server, or the embedded PostgreSQL, which runs until exit; errors end the command.

    Args:
        settings: with or without a `database_url`.
        create: whether to create the embedded PostgreSQL if the home has none.
    """
    with exit_on_error(), located_server(settings, create=create) as located:
        yield located


@contextmanager
def service_url(settings: Settings, *, create: bool = False) -> Iterator[URL]:
    """Yield only the URL of `service_server`."""
    with service_server(settings, create=create) as server:
        yield server.url


@contextmanager
def owner_url(settings: Settings, *, create: bool = False) -> Iterator[URL]:
    """Yield the URL for commands of the tables' owner: DIRECT_DATABASE_URL if it is set."""
    with service_url(settings, create=create) as url:
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
        problem = revision_problem(await current_revision(connection))
    if problem is not None:
        fail(problem)


async def database_folder(database: Database, settings: Settings) -> DatabaseFolder:
    """Return the folder with the keys and the checkpoint of this database; nothing is written."""
    is_embedded = settings.database_url is None
    async with database.connection() as connection:
        return await find_folder(connection, settings.home, settings.log_key, is_embedded=is_embedded)


def claim(folder: DatabaseFolder, settings: Settings) -> None:
    """Record that a folder belongs to its database; print what the operator would not expect."""
    if folder.owner not in (None, folder.database):
        click.echo(f"The key in {folder.path} has sealed this log: the folder now belongs to this database.")
    folder.claim()
    if folder.path != settings.home:
        click.echo(
            f"{settings.home} belongs to another database; the key and checkpoint of this one are in {folder.path}"
        )


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


async def migrate_new_database(database: Database, settings: Settings) -> None:
    """Migrate an embedded database that was just created; others are migrated by `ledger migrate` alone."""
    async with database.connection() as connection:
        is_new = await current_revision(connection) is None
    if is_new and settings.database_url is None:
        await migrate(database)


class ServiceDatabases(NamedTuple):
    """The connection pools of a running service: `appends` is for appends alone, so that readers cannot exhaust it.

    `direct` and `replica` are None if they are the same server as `main`.
    """

    main: Database
    appends: Database
    direct: Database | None
    replica: Database | None


@asynccontextmanager
async def service_databases(
    settings: Settings, server: LocatedServer, name: str, stop: asyncio.Event
) -> AsyncIterator[ServiceDatabases]:
    """Yield the databases of a service, all with the service's statement timeout; supervise an embedded server.

    Args:
        settings: with the URLs of other servers.
        server: the main one.
        name: the command of the service, by which `connected_services` finds its sessions.
        stop: set if the embedded server has ended and cannot be brought back, so that the service stops.

    Raises:
        EmbeddedError: on exit, why it could not be brought back.
    """
    # The API logs the outages of a replica itself.
    outage, replica_outage = Outage(), Outage(is_logged=False)
    async with AsyncExitStack() as stack:

        async def open_database(url: URL, pool_size: int, outage: Outage = outage) -> Database:
            named = url.update_query_dict({"application_name": name})
            database = Database(named, pool_size=pool_size, statement_seconds_max=STATEMENT_SECONDS_MAX, outage=outage)
            return await stack.enter_async_context(database)

        def other_server(other: URL | None) -> URL | None:
            # DIRECT_DATABASE_URL may name the same server with the owner's user: that user is for the owner's
            # commands only, and the service never connects as it.
            is_same = other is None or (other.host, other.port) == (server.url.host, server.url.port)
            return None if is_same else other

        await stack.enter_async_context(_supervised(server.embedded, outage, stop))
        direct, replica = map(other_server, (settings.direct_database_url, settings.replica_database_url))
        yield ServiceDatabases(
            await open_database(server.url, 10),
            await open_database(server.url, 2),
            await open_database(direct, 1) if direct is not None else None,
            await open_database(replica, 10, replica_outage) if replica is not None else None,
        )


@asynccontextmanager
async def _supervised(server: EmbeddedServer | None, outage: Outage, stop: asyncio.Event) -> AsyncIterator[None]:
    """Supervise an embedded server within the context; if the supervisor fails, set `stop`, and raise on exit."""
    if server is None:
        yield
        return
    running = asyncio.create_task(Supervisor(server, outage).run(), name="supervisor")
    running.add_done_callback(lambda _: stop.set())
    try:
        yield
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
