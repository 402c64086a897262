"""The database: its pool of asyncpg connections, aware of poolers, and its SQLAlchemy engine."""

import asyncio
from types import TracebackType
from typing import Any, Self

import asyncpg
from sqlalchemy import URL, NullPool, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.util import await_only

from ledger.database.connection import Connection
from ledger.database.pool import ConnectionPool, Loan
from ledger.database.pooler import (
    ENGINE_ARGUMENTS,
    WITHOUT_CACHE,
    declared_by_url,
    is_direct_connection,
    is_transaction_pooler,
)
from ledger.database.tls import tls_argument
from ledger.outage import Outage

CONNECT_SECONDS_MAX = 10.0

STATEMENT_SECONDS_MAX = 15.0
"""Statement timeout of the service, enforced by the client: a stopped or unreachable server returns no error."""


def connect_arguments(url: URL) -> tuple[URL, dict[str, Any]]:
    """Split a URL into a URL for SQLAlchemy's asyncpg dialect and the connection arguments of asyncpg.

    Raises:
        ConfigError: the root certificate of the URL cannot be used.
    """
    query = dict(url.query)
    mode = query.pop("sslmode", None)
    root_certificate = query.pop("sslrootcert", None)
    timeout = query.pop("connect_timeout", None)
    for without_effect in ("channel_binding", "pgbouncer"):
        query.pop(without_effect, None)
    arguments: dict[str, Any] = {"timeout": float(str(timeout)) if timeout else CONNECT_SECONDS_MAX}
    # The server reads these, as those of any client of libpq.
    arguments["server_settings"] = {
        name: str(query.pop(name)) for name in ("application_name", "options") if name in query
    }
    tls = tls_argument(str(mode) if mode else None, str(root_certificate) if root_certificate else None)
    if tls is not None:
        arguments["ssl"] = tls
    return url.set(query=query), arguments


class Database:
    """A connection pool for one database. The first connection is opened when it is borrowed.

    Use it as an async context manager, or call `close`. `connection` lends an asyncpg connection of the pool. `engine`
    is a SQLAlchemy engine for migrations and the models: it opens a connection for each use.
    """

    def __init__(
        self,
        url: URL,
        *,
        pool_size: int = 10,
        statement_seconds_max: float | None = None,
        outage: Outage | None = None,
    ) -> None:
        """Make the pool.

        Args:
            url: the database, with any of the options in `ledger.config.OPTIONS`.
            pool_size: the most connections.
            statement_seconds_max: the timeout of a statement, which then raises TimeoutError; None: no timeout.
            outage: logs when the server fails and when it works again; None: outages are not logged, for programs that
                end with the error.

        Raises:
            ConfigError: the URL names a root certificate that cannot be used.
        """
        plain_url, arguments = connect_arguments(url)
        arguments["command_timeout"] = statement_seconds_max
        self.engine = create_async_engine(plain_url, connect_args=arguments, poolclass=NullPool)
        self._arguments = {**self.engine.dialect.create_connect_args(plain_url)[1], **arguments}
        self._is_pooled = declared_by_url(url)
        # Detection uses two connections of a pooler. Several tasks detecting at the same time could each hold one and
        # wait for another.
        self._detection = asyncio.Lock()
        self._pool = ConnectionPool(self._connect, pool_size, outage)
        event.listen(self.engine.sync_engine, "do_connect", self._connect_engine)

    @property
    def is_pooled(self) -> bool:
        """Whether connections go through a transaction-mode pooler; known after the first connection was opened."""
        return self._is_pooled is True

    @property
    def connections_in_use(self) -> int:
        """How many connections of the pool are borrowed."""
        return self._pool.in_use

    def connection(self) -> Loan:
        """Borrow an asyncpg connection for the duration of an `async with` block.

        After an error, or if a transaction is still open, the connection is closed instead of returned to the pool.

        Raises:
            TimeoutError: no connection is available within `BORROW_SECONDS_MAX`.
            SQLAlchemyError: the server refuses the connection.
        """
        return Loan(self._pool)

    async def close(self) -> None:
        """Close all connections of the pool."""
        await self._pool.close()
        await self.engine.dispose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _connect(self) -> Connection:
        """Open a connection for the pool. The first one detects a pooler, unless the URL declares it."""
        await self._detect_pooler()
        return await self._open(**(WITHOUT_CACHE if self._is_pooled else {}))

    def _connect_engine(self, dialect: Any, _record: Any, _arguments: Any, options: dict[str, Any]) -> Any:
        await_only(self._detect_pooler())
        return dialect.connect(**options, **(ENGINE_ARGUMENTS if self._is_pooled else {}))

    async def _detect_pooler(self) -> None:
        async with self._detection:
            if self._is_pooled is None:
                connection = await self._open()
                try:
                    is_direct = await is_direct_connection(connection)
                finally:
                    await connection.close()
                self._is_pooled = not is_direct and await is_transaction_pooler(lambda: self._open(**WITHOUT_CACHE))

    async def _open(self, **options: Any) -> Connection:
        try:
            return await asyncpg.connect(**self._arguments, **options)
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise DBAPIError(None, None, error) from error
