"""The connection pool: dead connections are replaced, idle ones pinged, waiting tasks served in order."""

import asyncio
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import asyncpg
import pytest
from sqlalchemy import URL

from ledger.database import Database, pool
from tests.log.helpers import connected, until, value

pytestmark = pytest.mark.direct

PID = "SELECT pg_backend_pid()"


async def terminate(url: URL, pid: int) -> None:
    """Terminate a session on the server and wait until it has ended."""
    async with connected(url) as other:
        await other.execute(f"SELECT pg_terminate_backend({pid})")
        await until(lambda: other.fetchval(f"SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid})"))


@pytest.mark.parametrize("ping_after_seconds", [0, 600], ids=["found by a ping", "found closed"])
async def test_a_terminated_connection_is_replaced(
    database: Database, database_url: URL, monkeypatch: pytest.MonkeyPatch, ping_after_seconds: float
) -> None:
    monkeypatch.setattr(pool, "PING_AFTER_SECONDS", ping_after_seconds)
    before = await value(database, PID)
    await terminate(database_url, before)

    assert await value(database, PID) != before


async def test_a_connection_that_was_just_used_is_lent_without_a_ping(database: Database) -> None:
    queries: list[str] = []
    async with database.connection() as connection:
        connection.add_query_logger(lambda query: queries.append(query.query))

    for _ in range(3):
        await value(database, PID)
    # The logger is called in the next iteration of the event loop.
    await asyncio.sleep(0)

    assert queries == [PID] * 3


async def test_waiting_tasks_are_served_in_order(database_url: URL) -> None:
    database = Database(database_url, pool_size=1)
    served: list[int] = []

    async def borrow(number: int) -> None:
        async with database.connection():
            served.append(number)

    async with database.connection():
        waiting = [asyncio.create_task(borrow(number)) for number in range(5)]
        await asyncio.sleep(0.05)
    # No other task has run since the connection was returned.
    await borrow(5)
    await asyncio.gather(*waiting)
    await database.close()

    assert served == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("statement", "raises"),
    [("SELECT 1/0", pytest.raises(asyncpg.DivisionByZeroError)), ("BEGIN", nullcontext())],
    ids=["error", "transaction"],
)
async def test_a_connection_whose_state_is_unknown_is_closed(
    database: Database, statement: str, raises: AbstractContextManager[Any]
) -> None:
    before = await value(database, PID)

    with raises:
        async with database.connection() as connection:
            await connection.execute(statement)

    assert await value(database, PID) != before
    assert database.connections_in_use == 0


async def test_an_old_connection_is_replaced(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    before = await value(database, PID)
    monkeypatch.setattr(pool, "RECYCLE_SECONDS", 0)

    assert await value(database, PID) != before


async def test_a_cancelled_borrower_leaves_its_place_to_others(database_url: URL) -> None:
    async with Database(database_url, pool_size=1) as database:
        async with database.connection():
            cancelled = asyncio.create_task(value(database, PID))
            waiting = asyncio.create_task(value(database, PID))
            await asyncio.sleep(0)
            cancelled.cancel()
            await asyncio.wait([cancelled])

        assert isinstance(await waiting, int)
        assert database.connections_in_use == 0


async def test_connections_returned_after_the_pool_was_closed_are_closed(database_url: URL) -> None:
    database = Database(database_url)
    async with database.connection() as connection:
        await database.close()

    assert connection.is_closed()
