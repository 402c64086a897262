"""PgBouncer in transaction mode: it is detected, and all that needs no session works through it."""

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
from tests.log.helpers import connected, request, until
from tests.servers.pgbouncer import pgbouncer
from tests.servers.postgresql import PostgreSQL

SLEEPING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND state = 'active' AND query LIKE 'SELECT pg_sleep%'
"""


async def detects_pooler(url: URL) -> bool:
    database = Database(url)
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT $1::int", 1) == 1
    await database.close()
    return database.is_pooled


async def append_concurrently(database: Database, transactions: int, clients: int = 10) -> list[Any]:
    """Append in `transactions` transactions from concurrent clients; return the error of each, or None."""

    async def one() -> None:
        async with database.connection() as connection:
            await append(connection, [request(campaign()), request(cost())])

    async def client() -> list[Any]:
        return [
            (await asyncio.gather(one(), return_exceptions=True))[0] for _ in range(max(1, transactions // clients))
        ]

    return [error for errors in await asyncio.gather(*(client() for _ in range(clients))) for error in errors]


async def test_a_pooler_in_transaction_mode_is_detected(plain_server: PostgreSQL, pooler: URL) -> None:
    assert await detects_pooler(pooler)
    assert not await detects_pooler(plain_server.url)


async def test_a_pooler_in_session_mode_is_treated_as_a_direct_connection(plain_server: PostgreSQL) -> None:
    with pgbouncer(plain_server.url, "session") as url:
        assert not await detects_pooler(url)


async def test_a_declaration_in_the_url_replaces_the_detection(plain_server: PostgreSQL, pooler: URL) -> None:
    assert await detects_pooler(plain_server.url.set(query={"pgbouncer": "true"}))
    assert not await detects_pooler(pooler.set(query={"pgbouncer": "false"}))
    assert Database(pooler.set(host="h", port=6543)).is_pooled
    assert not Database(pooler.set(host="h", port=6543, query={"pgbouncer": "false"})).is_pooled


async def test_240_concurrent_transactions_all_succeed(pooled: URL) -> None:
    databases = [Database(pooled) for _ in range(4)]

    results = await asyncio.gather(*(append_concurrently(database, 60) for database in databases))

    assert [error for errors in results for error in errors] == [None] * 240
    async with databases[0].connection() as connection:
        assert await read_head(connection) == 480
    for database in databases:
        await database.close()


async def test_a_cancelled_statement_ends_on_the_server_and_the_pool_stays_usable(
    plain_server: PostgreSQL, migrated: URL
) -> None:
    with pgbouncer(plain_server.url, pool_size=1) as url:
        database = Database(url.set(database=migrated.database), pool_size=1)

        async def sleep() -> None:
            async with database.connection() as connection:
                await connection.execute("SELECT pg_sleep(60)")

        async with connected(migrated) as watcher:

            async def sleeping() -> bool:
                return bool(await watcher.fetchval(SLEEPING))

            async def awake() -> bool:
                return not await sleeping()

            for _ in range(3):
                task = asyncio.create_task(sleep())
                await until(sleeping)
                task.cancel()
                await until(awake)

        async with database.connection() as connection:
            assert await connection.fetchval("SELECT 1") == 1
        await database.close()


async def test_an_undetected_pooler_causes_errors(pooled: URL) -> None:
    databases = [Database(pooled.set(query={"pgbouncer": "false"})) for _ in range(4)]

    results = await asyncio.gather(*(append_concurrently(database, 60) for database in databases))

    assert any(error is not None for errors in results for error in errors)
    for database in databases:
        await database.close()


async def test_migrations_work_through_a_pooler(pooled: URL) -> None:
    database = Database(pooled)

    await migrate(database, to="base")
    await migrate(database)

    assert await append_concurrently(database, 1, clients=1) == [None]
    await database.close()


async def test_a_process_behind_the_pooler_notifies_processes_with_a_direct_connection(
    pooled: URL, migrated: URL
) -> None:
    sending, receiving, direct = Database(pooled), Database(pooled), Database(migrated, pool_size=1)
    sender_signal, receiver_signal = LogSignal(), LogSignal()
    sender, receiver = Notifier(sending, sender_signal), Notifier(receiving, receiver_signal, direct)
    tasks = [asyncio.create_task(notifier.run()) for notifier in (sender, receiver)]

    async def listening() -> bool:
        return receiver_signal.receives_notifications

    await until(listening)
    before = receiver_signal.generation
    sender.publish(1)

    async def notified() -> bool:
        return receiver_signal.generation > before

    await until(notified)
    assert not sender_signal.receives_notifications
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for database in (sending, receiving, direct):
        await database.close()


@pytest.mark.parametrize("command", [["verify"], ["rebuild"], ["replay", "--until", "0", "--schema", "past"]])
async def test_commands_of_the_owner_require_a_direct_connection(
    pooled: URL, migrated: URL, tmp_path: Path, command: list[str]
) -> None:
    refused = await ledger(*command, "--home", tmp_path, database=plain(pooled))
    done = await ledger(*command, "--home", tmp_path, database=plain(pooled), DIRECT_DATABASE_URL=plain(migrated))

    assert (refused.code, "set DIRECT_DATABASE_URL" in refused.err, "Traceback" in refused.err) == (1, True, False)
    assert (done.code, done.err) == (0, "")
