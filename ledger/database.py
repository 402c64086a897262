"""The way to the database: which server, how to connect to it, and the driver connection under a pool."""

import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import asyncpg
import msgspec
from sqlalchemy import URL, Dialect, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ledger.config import Settings, parse_url
from ledger.embedded import EmbeddedServer

CONNECT_SECONDS_MAX = 10
POOL_RECYCLE_SECONDS = 280
"""Below the five idle minutes after which serverless databases suspend."""

PING_AFTER_SECONDS = 1.0
"""A connection that has lain in the pool for longer is asked whether it still lives before it is lent."""

CONNECTION_ERRORS = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
)
"""What is raised when the database cannot be reached, went away, was shut down, or is full."""


@contextmanager
def database(settings: Settings) -> Iterator[Settings]:
    """Yield settings whose `database_url` is reachable: the configured one, or the embedded server's while inside.

    Raises:
        EmbeddedError: the embedded server cannot be started.
    """
    if settings.database_url is not None:
        yield settings
        return
    with EmbeddedServer.acquire(settings.home) as server:
        url = parse_url("DATABASE_URL", server.url)
        yield msgspec.structs.replace(settings, database_url=url, direct_database_url=url)


def connect_arguments(url: URL) -> tuple[URL, dict[str, Any]]:
    """Split a URL into the one SQLAlchemy's asyncpg dialect takes and the arguments that asyncpg takes.

    `sslmode` and `channel_binding` are libpq's words, which asyncpg does not take in a URL: `require` encrypts,
    `verify-ca` verifies the certificate and `verify-full` the host's name too.
    """
    query = dict(url.query)
    mode = query.pop("sslmode", None)
    root_certificate = query.pop("sslrootcert", None)
    timeout = query.pop("connect_timeout", None)
    for without_effect in ("channel_binding", "application_name", "pgbouncer"):
        query.pop(without_effect, None)
    arguments: dict[str, Any] = {"timeout": float(str(timeout)) if timeout else CONNECT_SECONDS_MAX}
    if mode in ("require", "verify-ca", "verify-full"):
        context = ssl.create_default_context(cafile=str(root_certificate) if root_certificate else None)
        context.check_hostname = mode == "verify-full"
        if mode == "require":
            context.verify_mode = ssl.CERT_NONE
        arguments["ssl"] = context
    elif mode == "disable":
        arguments["ssl"] = False
    return url.set(query=query), arguments


def make_engine(url: URL, *, pool_size: int = 10) -> AsyncEngine:
    """Make an engine; nothing is connected yet."""
    url, arguments = connect_arguments(url)
    engine = create_async_engine(
        url,
        connect_args=arguments,
        pool_size=pool_size,
        max_overflow=0,
        pool_recycle=POOL_RECYCLE_SECONDS,
    )
    event.listen(engine.sync_engine, "checkin", _note_time)
    event.listen(engine.sync_engine, "checkout", partial(_require_alive, engine.dialect))
    return engine


def _note_time(connection: Any, record: Any) -> None:
    record.info["free_since"] = time.monotonic()


def _require_alive(dialect: Dialect, connection: Any, record: Any, proxy: Any) -> None:
    """Have the pool replace a dead connection; SQLAlchemy's own ping would cost three round trips each time."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError
    if time.monotonic() - record.info.get("free_since", time.monotonic()) < PING_AFTER_SECONDS:
        return
    try:
        dialect.do_ping(connection)
    except Exception as error:
        raise DisconnectionError from error


@asynccontextmanager
async def driver_connection(engine: AsyncEngine) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """Borrow the asyncpg connection under a pooled one, for COPY and set-wise statements.

    A connection that is left inside a transaction, or by an error, is not given back but closed.
    """
    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()
        driver = raw.driver_connection
        assert isinstance(driver, asyncpg.Connection)
        try:
            yield driver
        except BaseException:
            # The state of the connection is unknown (a cancelled COPY, a lost server): never hand it to another.
            await connection.invalidate()
            raise
        if driver.is_closed() or driver.is_in_transaction():
            await connection.invalidate()
