"""`Database`: a pool of connections to one PostgreSQL database, and how they are made, checked and lent."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import asyncpg
from sqlalchemy import URL, event
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.util import await_only, greenlet_spawn

from ledger.database.connection import Connection
from ledger.database.pooler import POOLED_ARGUMENTS, declared, is_direct, pools_transactions
from ledger.database.tls import tls_argument

CONNECT_SECONDS_MAX = 10.0
BORROW_SECONDS_MAX = 10.0
"""Timeout for borrowing a connection that answers."""

STATEMENT_SECONDS_MAX = 15.0
"""Statement timeout of the service, enforced by the client: a stopped or unreachable server sends no error."""

POOL_RECYCLE_SECONDS = 280
"""Below the five idle minutes after which serverless databases suspend."""

PING_AFTER_SECONDS = 1.0
"""A connection that was idle in the pool for longer is pinged before it is lent."""


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


class Database:
    """A pool of connections; nothing is connected until the first one is borrowed.

    Use it as an async context manager, or call `close`. `engine` is the SQLAlchemy engine, for statements of
    SQLAlchemy; everything that COPYs or works set-wise borrows the asyncpg connection with `connection`.
    """

    def __init__(self, url: URL, *, pool_size: int = 10, statement_seconds_max: float | None = None) -> None:
        """Make the pool.

        Args:
            url: of the database; `sslmode`, `sslrootcert`, `connect_timeout` and `pgbouncer` are understood.
            pool_size: connections at most.
            statement_seconds_max: after this time a statement raises TimeoutError; None: no timeout.

        Raises:
            ConfigError: the URL names a root certificate that cannot be used.
        """
        plain, arguments = connect_arguments(url)
        arguments["command_timeout"] = statement_seconds_max
        self.engine = create_async_engine(
            plain,
            connect_args=arguments,
            pool_size=pool_size,
            max_overflow=0,
            pool_recycle=POOL_RECYCLE_SECONDS,
        )
        self._is_pooled = declared(url)
        # The pool alone is not fair: a newcomer may overtake those who wait.
        self._turns = asyncio.Semaphore(pool_size)
        # Detection takes two connections of a pooler: if many detected at once, each could hold one and wait for
        # another.
        self._detection = asyncio.Lock()
        event.listen(self.engine.sync_engine, "do_connect", self._connect)
        event.listen(self.engine.sync_engine, "checkin", _record_checkin)
        event.listen(self.engine.sync_engine, "checkout", self._require_alive)

    @property
    def is_pooled(self) -> bool:
        """Whether a transaction-mode pooler lies before the server; known once a connection was made."""
        return self._is_pooled is True

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Borrow an asyncpg connection.

        A connection that is left inside a transaction, or by an error, is closed instead of returned.

        Raises:
            TimeoutError: none answers within `BORROW_SECONDS_MAX`.
            SQLAlchemyError: none can be made.
        """
        async with asyncio.timeout(BORROW_SECONDS_MAX) as borrowing, self._turns:
            # SQLAlchemy's own connection object around the pooled one would cost as much as a small query.
            try:
                pooled = await self.engine.raw_connection()
            except self.engine.dialect.loaded_dbapi.Error as error:
                raise DBAPIError(None, None, error) from error
            borrowing.reschedule(None)
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

    async def close(self) -> None:
        """Close every connection of the pool."""
        await self.engine.dispose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _connect(self, dialect: Any, _record: Any, _arguments: Any, options: dict[str, Any]) -> Any:
        """Make a connection for the pool; the first one detects a pooler, unless the URL declares it."""
        if self._is_pooled is None:
            await_only(self._detection.acquire())
            try:
                if self._is_pooled is None:
                    self._is_pooled = self._detect_pooler(dialect, options)
            finally:
                self._detection.release()
        return dialect.connect(**options, **(POOLED_ARGUMENTS if self._is_pooled else {}))

    @staticmethod
    def _detect_pooler(dialect: Any, options: dict[str, Any]) -> bool:
        connection = dialect.connect(**options)
        try:
            if await_only(is_direct(connection.driver_connection)):
                return False
        finally:
            connection.close()
        return await_only(pools_transactions(lambda: asyncpg.connect(**options, statement_cache_size=0)))

    def _require_alive(self, connection: Any, record: Any, _proxy: Any) -> None:
        """Have the pool replace a dead connection; SQLAlchemy's own ping would cost three round trips each time."""
        if connection.driver_connection.is_closed():
            raise DisconnectionError
        if time.monotonic() - record.info.get("idle_since", time.monotonic()) < PING_AFTER_SECONDS:
            return
        try:
            self.engine.dialect.do_ping(connection)
        except Exception as error:
            raise DisconnectionError from error


def _record_checkin(_connection: Any, record: Any) -> None:
    record.info["idle_since"] = time.monotonic()
