"""Connection pool: asyncpg connections, lent in order of arrival, pinged after idling."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType

from ledger.database.connection import Connection, is_outage, outage_reason
from ledger.outage import Outage

BORROW_SECONDS_MAX = 10.0
"""Timeout for borrowing a connection, including the ping."""

RECYCLE_SECONDS = 280.0
"""Age at which a connection is replaced: serverless databases suspend after five idle minutes."""

PING_AFTER_SECONDS = 1.0
"""A connection that was idle for longer is pinged before it is lent."""

CLOSE_SECONDS_MAX = 2.0
"""Timeout for closing a connection properly; then its socket is closed."""


class _Pooled:
    """A connection of the pool, when it was opened, and when it was last returned."""

    __slots__ = ("connection", "idle_since", "opened_at")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.opened_at = self.idle_since = time.monotonic()

    def is_fresh(self) -> bool:
        """Whether it can be lent without a ping."""
        now = time.monotonic()
        idle_seconds, age_seconds = now - self.idle_since, now - self.opened_at
        is_young = idle_seconds < PING_AFTER_SECONDS and age_seconds < RECYCLE_SECONDS
        return is_young and not self.connection.is_closed()

    async def is_alive(self) -> bool:
        """Whether it is young enough and, after a ping if it was idle for long, the server answers on it."""
        if self.connection.is_closed() or time.monotonic() - self.opened_at >= RECYCLE_SECONDS:
            return False
        try:
            await self.connection.execute("SELECT")
        except Exception:  # noqa: BLE001 (whatever the error is, the connection is replaced)
            return False
        return True

    async def close(self) -> None:
        """Close it, even if the caller is cancelled meanwhile."""
        if not self.connection.is_closed():
            await asyncio.shield(self._close())

    async def _close(self) -> None:
        try:
            await self.connection.close(timeout=CLOSE_SECONDS_MAX)
        except Exception:  # noqa: BLE001 (the server does not answer, or a statement is in the way)
            self.connection.terminate()


class ConnectionPool:
    """At most `size` connections, opened when they are needed. The one returned last is lent first."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]], size: int, outage: Outage | None = None) -> None:
        """Make the pool, without connections.

        Args:
            connect: opens a connection.
            size: the most connections.
            outage: gets each failure and each success to reach the server; None: nothing is logged.
        """
        self._connect = connect
        self._outage = outage or Outage(is_logged=False)
        self._slots = asyncio.Semaphore(size)
        self._idle: list[_Pooled] = []
        self._is_closed = False
        self.in_use = 0

    def connection(self) -> "Loan":
        """Lend a connection for the duration of an `async with` block."""
        return Loan(self)

    async def take(self) -> _Pooled:
        """Take a connection out of the pool.

        Raises:
            TimeoutError: none is available within `BORROW_SECONDS_MAX`.
        """
        if self._slots.locked() or not self._idle or not self._idle[-1].is_fresh():
            try:
                async with asyncio.timeout(BORROW_SECONDS_MAX):
                    return await self._wait()
            except Exception as error:
                self.report(error)
                raise
        # Without a timer, which costs as much as all the rest: this does not wait.
        await self._slots.acquire()
        self.in_use += 1
        return self._idle.pop()

    async def _wait(self) -> _Pooled:
        await self._slots.acquire()
        self.in_use += 1
        try:
            pooled = await self._fresh()
        except BaseException:
            self._release()
            raise
        self._outage.record_success()
        return pooled

    async def _fresh(self) -> _Pooled:
        """Return an idle connection that works, else a new one."""
        while self._idle:
            pooled = self._idle.pop()
            try:
                if pooled.is_fresh() or await pooled.is_alive():
                    return pooled
            except BaseException:
                await pooled.close()
                raise
            await pooled.close()
        return _Pooled(await self._connect())

    async def put_back(self, pooled: _Pooled, *, is_reusable: bool) -> None:
        """Put a connection back, or close it if its state is unknown."""
        try:
            connection = pooled.connection
            if is_reusable and not (self._is_closed or connection.is_closed() or connection.is_in_transaction()):
                pooled.idle_since = time.monotonic()
                self._idle.append(pooled)
            else:
                await pooled.close()
        finally:
            self._release()

    def report(self, error: BaseException | None) -> None:
        """Record an error of a connection or of its use, if it means that the database is unavailable."""
        if error is not None and is_outage(error):
            self._outage.record_failure(outage_reason(error))

    def _release(self) -> None:
        self.in_use -= 1
        self._slots.release()

    async def close(self) -> None:
        """Close the idle connections now, and the others when they are returned."""
        self._is_closed = True
        idle, self._idle = self._idle, []
        await asyncio.gather(*(pooled.close() for pooled in idle))


class Loan(AbstractAsyncContextManager[Connection]):
    """A borrowed connection.

    After an error, or if a transaction is still open, it is closed instead of returned to the pool.
    """

    __slots__ = ("_pool", "_pooled")

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    async def __aenter__(self) -> Connection:
        self._pooled = await self._pool.take()
        return self._pooled.connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.report(error)
        # After an error the connection's state is unknown (a cancelled COPY, a lost server): it must not be reused.
        await self._pool.put_back(self._pooled, is_reusable=kind is None)
