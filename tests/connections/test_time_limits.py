"""A suspended server: every wait ends with a timeout, and everything works again afterwards."""

import asyncio
import time
from collections.abc import Callable, Iterator

import psutil
import pytest
from sqlalchemy import URL

from ledger import key_ring
from ledger.database import Database, pool
from ledger.domain.access import Role
from ledger.key_ring import KeyRing
from ledger.keys import create_key
from tests.servers.postgresql import PostgreSQL

LIMIT_SECONDS = 1.0


@pytest.fixture
def suspend_server(plain_server: PostgreSQL, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], None]]:
    """A function that suspends (True) or resumes (False) the server; timeouts are short."""
    monkeypatch.setattr(pool, "BORROW_SECONDS_MAX", LIMIT_SECONDS)
    monkeypatch.setattr(pool, "PING_AFTER_SECONDS", 0.0)

    def change(suspended: bool) -> None:
        postmaster = psutil.Process(plain_server.pid)
        for process in [postmaster, *postmaster.children(recursive=True)]:
            if suspended:
                process.suspend()
            else:
                process.resume()

    yield change
    change(False)


async def select_one(database: Database) -> int:
    async with database.connection() as connection:
        one: int = await connection.fetchval("SELECT 1")
        return one


async def test_more_borrowers_than_connections_all_time_out_and_are_all_served_afterwards(
    migrated: URL, suspend_server: Callable[[bool], None]
) -> None:
    database = Database(migrated, pool_size=3)
    assert await select_one(database) == 1
    suspend_server(True)

    started = time.monotonic()
    errors = await asyncio.gather(*(select_one(database) for _ in range(9)), return_exceptions=True)
    seconds = time.monotonic() - started
    suspend_server(False)
    served = await asyncio.gather(*(select_one(database) for _ in range(9)))

    assert {type(error) for error in errors} == {TimeoutError}
    # Closing a connection that does not answer takes up to two seconds more.
    assert seconds < LIMIT_SECONDS + 4
    assert served == [1] * 9
    await database.close()


async def test_after_a_statement_timeout_the_connection_is_replaced(migrated: URL) -> None:
    database = Database(migrated, pool_size=1, statement_seconds_max=0.3)

    with pytest.raises(TimeoutError):
        async with database.connection() as connection:
            await connection.execute("SELECT pg_sleep(60)")

    assert await select_one(database) == 1
    await database.close()


async def test_concurrent_requests_with_a_key_share_one_timeout_in_an_outage(
    migrated: URL, suspend_server: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_ring, "REFRESH_SECONDS", 0.0)
    database = Database(migrated)
    async with database.connection() as connection:
        _, text = await create_key(connection, "agent", Role.ADMIN)
    ring = KeyRing(database)
    suspend_server(True)

    started = time.monotonic()
    errors = await asyncio.gather(*(ring.authenticate(text) for _ in range(8)), return_exceptions=True)
    seconds = time.monotonic() - started
    suspend_server(False)

    assert {type(error) for error in errors} == {TimeoutError}
    assert seconds < LIMIT_SECONDS + 4
    assert (await ring.authenticate(text)).name == "agent"
    await database.close()
