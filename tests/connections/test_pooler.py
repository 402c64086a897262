"""PgBouncer in transaction mode: it is found out, and everything but what needs a session works through it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from ledger.database import Database
from ledger.database.migrations import migrate
from ledger.log.append import append
from ledger.log.notifications import LogSignal, Notifier
from ledger.log.read import read_head
from tests.cli.helpers import ledger, plain
from tests.events import campaign, cost
from tests.log.helpers import request, until
from tests.servers.pgbouncer import pgbouncer
from tests.servers.postgresql import PostgreSQL


async def found_pooled(url: URL) -> bool:
    database = Database(url)
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT $1::int", 1) == 1
    await database.close()
    return database.is_pooled


async def appended(database: Database, transactions: int, clients: int = 10) -> list[Any]:
    """How so many appends by so many clients at once have ended."""

    async def one() -> None:
        async with database.connection() as connection:
            await append(connection, [request(campaign()), request(cost())])

    async def client() -> list[Any]:
        return [
            (await asyncio.gather(one(), return_exceptions=True))[0] for _ in range(max(1, transactions // clients))
        ]

    return [error for errors in await asyncio.gather(*(client() for _ in range(clients))) for error in errors]


async def test_a_pooler_in_transaction_mode_is_found_out(plain_server: PostgreSQL, pooler: URL) -> None:
    assert await found_pooled(pooler)
    assert not await found_pooled(plain_server.url)


async def test_a_pooler_in_session_mode_is_as_good_as_none(plain_server: PostgreSQL) -> None:
    with pgbouncer(plain_server.url, "session") as url:
        assert not await found_pooled(url)


async def test_what_the_url_says_of_itself_goes_before_trying(plain_server: PostgreSQL, pooler: URL) -> None:
    assert await found_pooled(plain_server.url.set(query={"pgbouncer": "true"}))
    assert not await found_pooled(pooler.set(query={"pgbouncer": "false"}))
    assert Database(pooler.set(host="h", port=6543)).is_pooled
    assert not Database(pooler.set(host="h", port=6543, query={"pgbouncer": "false"})).is_pooled


async def test_every_one_of_240_transactions_at_once_succeeds(pooled: URL) -> None:
    databases = [Database(pooled) for _ in range(4)]

    ended = await asyncio.gather(*(appended(database, 60) for database in databases))

    assert [error for errors in ended for error in errors] == [None] * 240
    async with databases[0].connection() as connection:
        assert await read_head(connection) == 480
    for database in databases:
        await database.close()


async def test_a_pooler_taken_for_a_server_fails_which_is_why_it_is_found_out(pooled: URL) -> None:
    databases = [Database(pooled.set(query={"pgbouncer": "false"})) for _ in range(4)]

    ended = await asyncio.gather(*(appended(database, 60) for database in databases))

    assert any(error is not None for errors in ended for error in errors)
    for database in databases:
        await database.close()


async def test_migrations_pass_a_pooler(pooled: URL) -> None:
    database = Database(pooled)

    await migrate(database, to="base")
    await migrate(database)

    assert await appended(database, 1, clients=1) == [None]
    await database.close()


async def test_a_process_behind_the_pooler_wakes_those_that_listen_beside_it(pooled: URL, migrated: URL) -> None:
    behind, beside, direct = Database(pooled), Database(pooled), Database(migrated, pool_size=1)
    deaf, hearing = LogSignal(), LogSignal()
    teller, listener = Notifier(behind, deaf), Notifier(beside, hearing, direct)
    tasks = [asyncio.create_task(notifier.run()) for notifier in (teller, listener)]

    async def hears() -> bool:
        return hearing.receives_notifications

    await until(hears)
    before = hearing.generation
    teller.announce(1)

    async def rang() -> bool:
        return hearing.generation > before

    await until(rang)
    assert not deaf.receives_notifications
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for database in (behind, beside, direct):
        await database.close()


@pytest.mark.parametrize("verb", [["verify"], ["rebuild"], ["replay", "--until", "0", "--schema", "past"]])
async def test_the_owners_work_asks_for_a_direct_connection(
    pooled: URL, migrated: URL, tmp_path: Path, verb: list[str]
) -> None:
    refused = await ledger(*verb, "--home", tmp_path, database=plain(pooled))
    done = await ledger(*verb, "--home", tmp_path, database=plain(pooled), DIRECT_DATABASE_URL=plain(migrated))

    assert (refused.code, "set DIRECT_DATABASE_URL" in refused.err, "Traceback" in refused.err) == (1, True, False)
    assert (done.code, done.err) == (0, "")
