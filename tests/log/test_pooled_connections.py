"""Connections that lie in the pool: asked whether they live where that is in doubt, and no more often."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import URL, event

from ledger.database import Database, engine
from tests.log.helpers import connected, until, value

pytestmark = pytest.mark.direct

PID = "SELECT pg_backend_pid()"


async def cut(url: URL, pid: int) -> None:
    """End a connection from the server's side, for good."""
    async with connected(url) as other:
        await other.execute(f"SELECT pg_terminate_backend({pid})")
        await until(lambda: other.fetchval(f"SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid})"))


@pytest.mark.parametrize("ping_after_seconds", [0, 600], ids=["asked", "seen to be closed"])
async def test_one_that_was_cut_is_replaced(
    database: Database, database_url: URL, monkeypatch: pytest.MonkeyPatch, ping_after_seconds: float
) -> None:
    monkeypatch.setattr(engine, "PING_AFTER_SECONDS", ping_after_seconds)
    before = await value(database, PID)
    await cut(database_url, before)

    assert await value(database, PID) != before


async def test_one_that_was_just_used_is_lent_again_without_a_word(database: Database) -> None:
    said: list[str] = []

    @event.listens_for(database.engine.sync_engine, "connect")
    def listen(connection: Any, _: Any) -> None:
        connection.driver_connection.add_query_logger(lambda query: said.append(query.query))

    async with database.connection() as connection:
        await connection.fetchval(PID)
    said.clear()
    for _ in range(3):
        await value(database, PID)

    assert said == [PID] * 3


async def test_who_waits_is_not_passed_by_who_comes_later(database_url: URL) -> None:
    database = Database(database_url, pool_size=1)
    served: list[int] = []

    async def borrow(number: int) -> None:
        async with database.connection():
            served.append(number)

    async with database.connection():
        waiting = [asyncio.create_task(borrow(number)) for number in range(5)]
        await asyncio.sleep(0.05)
    # Nobody else has run since it was given back.
    await borrow(5)
    await asyncio.gather(*waiting)
    await database.close()

    assert served == [0, 1, 2, 3, 4, 5]
