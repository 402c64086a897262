"""The way to the database: which server, how to connect to it, and the driver connection under a pool."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import asyncpg
import msgspec
from sqlalchemy import URL, Dialect, event
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util import await_only, greenlet_spawn

from ledger.config import Settings, parse_url
from ledger.embedded import EmbeddedServer
from ledger.pooler import POOLED_ARGUMENTS, declared, is_direct, pools_transactions
from ledger.tls import tls_argument

CONNECT_SECONDS_MAX = 10.0
BORROW_SECONDS_MAX = 10.0
"""Who gets no connection that answers within this time is told that the database is away."""

STATEMENT_SECONDS_MAX = 15.0
"""The service waits no longer for an answer: a stopped server, or one that is gone without a word, says nothing."""

POOL_RECYCLE_SECONDS = 280
"""Below the five idle minutes after which serverless databases suspend."""

PING_AFTER_SECONDS = 1.0
"""A connection that has lain in the pool for longer is asked whether it still lives before it is lent."""

CONNECTION_ERRORS = (
    OSError,
    asyncpg.InterfaceError,
    # What a connection says that was cut in the middle of something.
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    # No connection, room on the disk or memory is left.
    asyncpg.InsufficientResourcesError,
    # Its disk cannot be read or written.
    asyncpg.PostgresSystemError,
)
"""What is raised when the database cannot be reached, went away, was shut down, is full, or its disk is."""


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

    Raises:
        ConfigError: a root certificate cannot be used.
    """
    query = dict(url.query)
    mode = query.pop("sslmode", None)
    root_certificate = query.pop("sslrootcert", None)
    timeout = query.pop("connect_timeout", None)
    for without_effect in ("channel_binding", "application_name", "pgbouncer"):
        query.pop(without_effect, None)
    arguments: dict[str, Any] = {"timeout": float(str(timeout)) if timeout else CONNECT_SECONDS_MAX}
    tls = tls_argument(str(mode) if mode else None, str(root_certificate) if root_certificate else None)
    if tls is not None:
        arguments["ssl"] = tls
    return url.set(query=query), arguments


def make_engine(url: URL, *, pool_size: int = 10, statement_seconds_max: float | None = None) -> AsyncEngine:
    """Make an engine; nothing is connected yet.

    Args:
        statement_seconds_max: who waits longer for an answer gets a TimeoutError; None: for ever.

    Raises:
        ConfigError: the URL names a root certificate that cannot be used.
    """
    plain, arguments = connect_arguments(url)
    arguments["command_timeout"] = statement_seconds_max
    engine = create_async_engine(
        plain,
        connect_args=arguments,
        pool_size=pool_size,
        max_overflow=0,
        pool_recycle=POOL_RECYCLE_SECONDS,
    )
    event.listen(engine.sync_engine, "checkin", _note_time)
    event.listen(engine.sync_engine, "checkout", partial(_require_alive, engine.dialect))
    # The pool itself would let those who have just come pass those who wait.
    engine.update_execution_options(is_pooled=declared(url), turns=asyncio.Semaphore(pool_size))
    # One finds out: many who each hold one of a pooler's connections and want another would wait for one another.
    finding_out = asyncio.Lock()

    @event.listens_for(engine.sync_engine, "do_connect")
    def connect(dialect: Any, _record: Any, _arguments: Any, options: dict[str, Any]) -> Any:
        """Connect; the first connection finds out whether a pooler lies between, where the URL does not say."""
        if engine.get_execution_options()["is_pooled"] is None:
            await_only(finding_out.acquire())
            try:
                if engine.get_execution_options()["is_pooled"] is None:
                    engine.update_execution_options(is_pooled=find_out(dialect, options))
            finally:
                finding_out.release()
        return dialect.connect(**options, **(POOLED_ARGUMENTS if is_pooled(engine) else {}))

    def find_out(dialect: Any, options: dict[str, Any]) -> bool:
        connection = dialect.connect(**options)
        try:
            if await_only(is_direct(connection.driver_connection)):
                return False
        finally:
            connection.close()
        return await_only(pools_transactions(lambda: asyncpg.connect(**options, statement_cache_size=0)))

    return engine


def is_pooled(engine: AsyncEngine) -> bool:
    """Whether a pooler in transaction mode lies before the server; known once a connection was made."""
    return engine.get_execution_options().get("is_pooled") is True


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

    Raises:
        TimeoutError: there is none that answers within `BORROW_SECONDS_MAX`.
        SQLAlchemyError: none can be made.
    """
    turns: asyncio.Semaphore = engine.get_execution_options()["turns"]
    async with asyncio.timeout(BORROW_SECONDS_MAX) as waiting, turns:
        # The pooled connection without SQLAlchemy's own around it, which would cost as much as a small query.
        try:
            pooled = await engine.raw_connection()
        except engine.dialect.loaded_dbapi.Error as error:
            raise DBAPIError(None, None, error) from error
        waiting.reschedule(None)
        driver = pooled.driver_connection
        assert isinstance(driver, asyncpg.Connection)
        try:
            yield driver
        except BaseException:
            # The state of the connection is unknown (a cancelled COPY, a lost server): never hand it to another.
            await greenlet_spawn(pooled.invalidate)
            raise
        if driver.is_closed() or driver.is_in_transaction():
            await greenlet_spawn(pooled.invalidate)
        else:
            await greenlet_spawn(pooled.close)
