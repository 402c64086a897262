"""Connections of the appender that fail at their n-th use: lost, timed out, late, head moved."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import asyncpg
import pytest

from ledger.log.connection_lease import ConnectionLease


class Faults:
    """Counts the uses of the appender's connections, and makes one of them fail."""

    def __init__(self, kind: str, at: int, append_elsewhere: Callable[[], Awaitable[Any]]) -> None:
        """Plan a fault.

        Args:
            kind: a key of `KINDS`.
            at: the use that fails; the first is 1.
            append_elsewhere: appends as another process does.
        """
        self.append_elsewhere = append_elsewhere
        self.late: list[tuple[Any, ...]] = []
        self._uses = 0
        self._kind = kind
        self._at = at

    def disarm(self) -> bool:
        """Prevent the fault from now on; return whether it has occurred."""
        is_reached = self._uses >= self._at
        self._at = 0
        return is_reached

    async def use(self, connection: Any, name: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of a connection, unless it is time for the fault."""
        self._uses += 1
        call = partial(getattr(connection, name), *arguments, **options)
        if self._uses != self._at:
            return await call()
        return await KINDS[self._kind](self, connection, call)


def lost(connection: Any) -> Exception:
    """Cut a connection, and return the error that asyncpg raises."""
    connection.terminate()
    return asyncpg.ConnectionDoesNotExistError("cut by a test")


async def _lost_before(_: Faults, connection: Any, _call: Any) -> Any:
    raise lost(connection)


async def _lost_after(_: Faults, connection: Any, call: Any) -> Any:
    await call()
    raise lost(connection)


async def _timed_out_before(_: Faults, _connection: Any, _call: Any) -> Any:
    raise TimeoutError


async def _timed_out_after(_: Faults, _connection: Any, call: Any) -> Any:
    await call()
    raise TimeoutError


async def _executed_late(faults: Faults, connection: Any, call: Any) -> Any:
    # Only a statement that is a transaction by itself can still be executed after its connection was lost.
    if call.func.__name__ == "fetchval" and not connection.is_in_transaction():
        faults.late.append(call.args)
    raise lost(connection)


async def _violated(_: Faults, connection: Any, _call: Any) -> Any:
    connection.terminate()
    raise asyncpg.UniqueViolationError("raised by a test")


async def _before_another_append(faults: Faults, connection: Any, call: Any) -> Any:
    answer = await call()
    if not connection.is_in_transaction():
        await faults.append_elsewhere()
    return answer


async def _after_another_append(faults: Faults, connection: Any, call: Any) -> Any:
    # In a transaction the connection may hold the head lock, and the other append would wait for it for ever.
    if not connection.is_in_transaction():
        await faults.append_elsewhere()
    return await call()


KINDS: dict[str, Callable[[Faults, Any, Any], Awaitable[Any]]] = {
    "lost before the statement": _lost_before,
    "lost after the statement": _lost_after,
    "timed out before the statement": _timed_out_before,
    "timed out after the statement": _timed_out_after,
    "executed late": _executed_late,
    "unique violation": _violated,
    "another process appends before the statement": _after_another_append,
    "another process appends after the statement": _before_another_append,
}


class FaultyConnection:
    """A connection whose uses are counted."""

    def __init__(self, connection: Any, faults: Faults) -> None:
        self._connection = connection
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        return partial(self._faults.use, self._connection, name)


def inject(monkeypatch: pytest.MonkeyPatch, faults: Faults) -> None:
    """Let all appenders use connections with these faults."""
    get = ConnectionLease.get

    async def get_faulty(lease: ConnectionLease) -> Any:
        return FaultyConnection(await get(lease), faults)

    monkeypatch.setattr(ConnectionLease, "get", get_faulty)
