"""A server that says nothing: nobody waits for it longer than the limits say, and all goes on after it."""

import asyncio
import time
from collections.abc import Callable, Iterator

import psutil
import pytest
from sqlalchemy import URL

from ledger import keys
from ledger.database import Database, engine
from ledger.domain.access import Role
from ledger.keys import KeyRing, create_key
from tests.servers.postgresql import PostgreSQL

LIMIT_SECONDS = 1.0


@pytest.fixture
def stop_and_go(plain_server: PostgreSQL, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], None]]:
    """Stop the server where it stands (True), and let it go on (False). Little patience is had with it."""
    monkeypatch.setattr(engine, "BORROW_SECONDS_MAX", LIMIT_SECONDS)
    monkeypatch.setattr(engine, "PING_AFTER_SECONDS", 0.0)

    def change(stopped: bool) -> None:
        postmaster = psutil.Process(plain_server.pid)
        for process in [postmaster, *postmaster.children(recursive=True)]:
            if stopped:
                process.suspend()
            else:
                process.resume()

    yield change
    change(False)


async def one(database: Database) -> int:
    async with database.connection() as connection:
        found: int = await connection.fetchval("SELECT 1")
        return found


async def test_more_borrowers_than_connections_are_all_told_in_time_and_all_served_afterwards(
    migrated: URL, stop_and_go: Callable[[bool], None]
) -> None:
    database = Database(migrated, pool_size=3)
    assert await one(database) == 1
    stop_and_go(True)

    started = time.monotonic()
    stopped = await asyncio.gather(*(one(database) for _ in range(9)), return_exceptions=True)
    seconds = time.monotonic() - started
    stop_and_go(False)
    served = await asyncio.gather(*(one(database) for _ in range(9)))

    assert {type(error) for error in stopped} == {TimeoutError}
    # A connection that says nothing is given two seconds more to be closed in peace.
    assert seconds < LIMIT_SECONDS + 4
    assert served == [1] * 9
    await database.close()


async def test_a_statement_past_its_time_is_given_up_and_its_connection_replaced(migrated: URL) -> None:
    database = Database(migrated, pool_size=1, statement_seconds_max=0.3)

    with pytest.raises(TimeoutError):
        async with database.connection() as connection:
            await connection.execute("SELECT pg_sleep(60)")

    assert await one(database) == 1
    await database.close()


async def test_all_who_come_with_a_key_in_an_outage_wait_once_and_together(
    migrated: URL, stop_and_go: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "REFRESH_SECONDS", 0.0)
    database = Database(migrated)
    async with database.connection() as connection:
        _, text = await create_key(connection, "agent", Role.ADMIN)
    ring = KeyRing(database)
    stop_and_go(True)

    started = time.monotonic()
    ended = await asyncio.gather(*(ring.authenticate(text) for _ in range(8)), return_exceptions=True)
    seconds = time.monotonic() - started
    stop_and_go(False)

    assert {type(error) for error in ended} == {TimeoutError}
    assert seconds < LIMIT_SECONDS + 4
    assert (await ring.authenticate(text)).name == "agent"
    await database.close()
