"""Build requests from events as clients send them, and read the log without the code under test."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg
import msgspec
import pytest
from sqlalchemy import URL

from ledger.database import Database
from ledger.domain import working_state
from ledger.domain.event import Candidate, Receipt, Request
from ledger.log import load, pending_releases, resident_state
from ledger.log.append import append
from ledger.log.decode import read_candidate
from tests.servers.kinds import direct_url

WAIT_SECONDS_MAX = 20

WAITING_FOR_LOCK = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'
    AND (query LIKE '%lock_and_load%' OR query LIKE '%append_events%')
"""


def candidate(event: dict[str, Any], **changes: Any) -> Candidate:
    return msgspec.structs.replace(read_candidate(msgspec.json.encode(event), 0, "local", None), **changes)


def request(*events: dict[str, Any], independent: bool = False) -> Request:
    return Request([candidate(event) for event in events], independent)


async def record(database: Database, *events: dict[str, Any], now: datetime | None = None) -> list[Receipt]:
    """Append events in one transaction; all must be accepted."""
    async with database.connection() as connection:
        (verdict,), _ = await append(connection, [request(*events)], now)
    return receipts(verdict)


def receipts(verdict: Sequence[object]) -> list[Receipt]:
    accepted = [answer for answer in verdict if isinstance(answer, Receipt)]
    assert len(accepted) == len(verdict), verdict
    return accepted


async def query(database: Database, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
    async with database.connection() as connection:
        return [tuple(row) for row in await connection.fetch(statement, *arguments)]


async def value(database: Database, statement: str, *arguments: Any) -> Any:
    ((only,),) = await query(database, statement, *arguments)
    return only


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    """Wait until a condition returns a true value, and return that value."""
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while not (result := await condition()):
            await asyncio.sleep(0.005)
    return result


@asynccontextmanager
async def connected(url: URL) -> Any:
    """Open a connection outside any pool."""
    plain = direct_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(plain)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def head_locked(url: URL) -> Any:
    """Hold the head lock; yield a function that waits until `number` appends wait for it."""
    async with connected(url) as holder, connected(url) as watcher, holder.transaction():
        await holder.execute("SELECT FROM ledger.log_head FOR UPDATE")

        async def appends_wait(number: int = 1) -> None:
            async def waiting() -> bool:
                return bool(await watcher.fetchval(WAITING_FOR_LOCK) == number)

            await until(waiting)

        yield appends_wait


def limit_releases(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let a group release at most this many holds of ended jobs."""
    for module in (working_state, load, resident_state, pending_releases):
        monkeypatch.setattr(module, "RELEASES_MAX", number)


async def turns(number: int = 5) -> None:
    """Let the tasks that are ready run, for `number` iterations of the event loop."""
    for _ in range(number):
        await asyncio.sleep(0)


async def gathered(tasks: Iterable[Awaitable[Any]]) -> list[Any]:
    """Wait for all tasks, for a limited time; return their results and exceptions."""
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        return await asyncio.gather(*tasks, return_exceptions=True)
