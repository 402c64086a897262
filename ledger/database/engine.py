"""Connection pool: asyncpg connections, borrowed in order, pinged after idling, aware of poolers."""

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
from ledger.database.pooler import POOLED_ARGUMENTS, declared_by_url, is_direct_connection, is_transaction_pooler
from ledger.database.tls import tls_argument

CONNECT_SECONDS_MAX = 10.0
BORROW_SECONDS_MAX = 10.0
"""Timeout for borrowing a connection, including the ping."""

STATEMENT_SECONDS_MAX = 15.0
"""Statement timeout of the service, enforced by the client: a stopped or unreachable server returns no error."""

POOL_RECYCLE_SECONDS = 280
"""Age at which a connection is replaced: serverless databases suspend after five idle minutes."""

PING_AFTER_SECONDS = 1.0
"""A connection that was idle for longer is pinged before it is borrowed."""


def connect_arguments(url: URL) -> tuple[URL, dict[str, Any]]:
    """Split a URL into a URL for SQLAlchemy's asyncpg dialect and the connection arguments of asyncpg.

    Raises:
        ConfigError: the root certificate of the URL cannot be used.
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
    """A connection pool for one database. The first connection is opened when it is borrowed.

    Use it as an async context manager, or call `close`. `connection` borrows an asyncpg connection; `engine` is the
    SQLAlchemy engine of the same pool, for the few statements written with SQLAlchemy.
    """

    def __init__(self, url: URL, *, pool_size: int = 10, statement_seconds_max: float | None = None) -> None:
        """Make the pool.

        Args:
            url: the database; the options `sslmode`, `sslrootcert`, `connect_timeout` and `pgbouncer` are supported.
            pool_size: the most connections.
            statement_seconds_max: the timeout of a statement, which then raises TimeoutError; None: no timeout.

        Raises:
            ConfigError: the URL names a root certificate that cannot be used.
        """
        plain_url, arguments = connect_arguments(url)
        arguments["command_timeout"] = statement_seconds_max
        self.engine = create_async_engine(
            plain_url,
            connect_args=arguments,
            pool_size=pool_size,
            max_overflow=0,
            pool_recycle=POOL_RECYCLE_SECONDS,
        )
        self._is_pooled = declared_by_url(url)
        # SQLAlchemy's pool does not serve waiting tasks in order; the semaphore does.
        self._slots = asyncio.Semaphore(pool_size)
        # Detection uses two connections of a pooler. Several tasks detecting at the same time could each hold one and
        # wait for another.
        self._detection = asyncio.Lock()
        event.listen(self.engine.sync_engine, "do_connect", self._connect)
        event.listen(self.engine.sync_engine, "checkin", _record_checkin)
        event.listen(self.engine.sync_engine, "checkout", self._require_alive)

    @property
    def is_pooled(self) -> bool:
        """Whether connections go through a transaction-mode pooler; known after the first connection was opened."""
        return self._is_pooled is True

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Borrow an asyncpg connection.

        After an error, or if a transaction is still open, the connection is closed instead of returned to the pool.

        Raises:
            TimeoutError: no connection is available within `BORROW_SECONDS_MAX`.
            SQLAlchemyError: no connection can be opened.
        """
        async with asyncio.timeout(BORROW_SECONDS_MAX) as borrowing, self._slots:
            # Without SQLAlchemy's AsyncConnection, which takes as long to set up as a small query.
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
                # The state of the connection is unknown (a cancelled COPY, a lost server): it must not be reused.
                await greenlet_spawn(pooled.invalidate)
                raise
            if driver.is_closed() or driver.is_in_transaction():
                await greenlet_spawn(pooled.invalidate)
            else:
                await greenlet_spawn(pooled.close)

    async def close(self) -> None:
        """Close all connections of the pool."""
        await self.engine.dispose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _connect(self, dialect: Any, _record: Any, _arguments: Any, options: dict[str, Any]) -> Any:
        """Open a connection for the pool. The first one detects a pooler, unless the URL declares it."""
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
            if await_only(is_direct_connection(connection.driver_connection)):
                return False
        finally:
            connection.close()
        return await_only(is_transaction_pooler(lambda: asyncpg.connect(**options, statement_cache_size=0)))

    def _require_alive(self, connection: Any, record: Any, _proxy: Any) -> None:
        """Raise DisconnectionError for a dead connection, so that the pool replaces it.

        SQLAlchemy's `pool_pre_ping` would take three round trips for every borrowed connection.
        """
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
