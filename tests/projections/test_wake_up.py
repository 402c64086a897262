"""Notifications wake the worker and the sweeper at once; without events they poll less and less often."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy import URL

from ledger.database import Connection, Database
from ledger.log.notifications import IDLE_SECONDS_MAX, QUIET_SECONDS_MAX, LogSignal
from ledger.runtime import background
from projections import worker as worker_module
from projections.worker import IDLE_SECONDS_MIN, Worker
from tests.events import campaign, cost, reserve
from tests.log.helpers import query, record, request, until, value
from tests.projections.helpers import folded_up_to

NEEDS_LISTEN = pytest.mark.direct
"""Behind a transaction-mode pooler, LISTEN does not work."""


@pytest.fixture
async def other_database(database_url: URL) -> AsyncIterator[Database]:
    """A second pool, as another process has."""
    database = Database(database_url)
    yield database
    await database.close()


async def is_listening(signal: LogSignal) -> None:
    async def listening() -> bool:
        return signal.receives_notifications

    await until(listening)


@NEEDS_LISTEN
async def test_an_append_of_another_process_wakes_a_worker_that_would_poll_in_ten_minutes(
    database: Database, other_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "IDLE_SECONDS_MIN", 600)
    async with (
        background(database, with_worker=True) as (_, signal),
        background(other_database, with_worker=False) as (appender, _),
    ):
        await is_listening(signal)
        for position in range(1, 4):
            await appender.append(request(cost()))

            await folded_up_to(other_database, position)
            # The worker has polled once more, found nothing, and sleeps.
            await asyncio.sleep(0.1)


async def test_an_append_in_the_same_process_wakes_the_worker_without_the_database(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "IDLE_SECONDS_MIN", 600)
    monkeypatch.setattr("ledger.log.notifications.CHANNEL", "elsewhere")
    async with background(database, with_worker=True) as (appender, signal):
        for position in range(1, 4):
            await appender.append(request(cost()))

            await folded_up_to(database, position)
            await asyncio.sleep(0.1)

    assert not signal.receives_notifications


@NEEDS_LISTEN
async def test_a_hold_of_another_process_expires_on_time_though_the_sweeper_sleeps(
    database: Database, other_database: Database
) -> None:
    opened = campaign("100")
    await record(database, opened, reserve("5", campaign_id=opened["id"], expires_in=3_600))
    async with (
        background(database, with_worker=True) as (_, signal),
        background(other_database, with_worker=False) as (appender, _),
    ):
        await is_listening(signal)
        # By now the sweeper sleeps until the first hold expires, in an hour.
        await asyncio.sleep(1.2)

        await appender.append(request(reserve("7", campaign_id=opened["id"], expires_in=1)))

        async def freed() -> bool:
            return bool(await value(other_database, "SELECT held FROM ledger.accounts") == 5)

        await until(freed)

    expired = "SELECT extract(epoch FROM recorded_at - occurred_at) < 1 FROM ledger.events WHERE type = 'cost.expired'"
    assert await query(other_database, expired) == [(True,)]


class RecordingSignal(LogSignal):
    """Does not wait, but records the timeouts."""

    def __init__(self, receives_notifications: bool) -> None:
        super().__init__()
        self.receives_notifications = receives_notifications
        self.timeouts: list[float] = []

    async def wait(self, seen: int, seconds: float) -> None:
        self.timeouts.append(seconds)
        await asyncio.sleep(0)


@pytest.mark.parametrize(("receives_notifications", "longest"), [(False, IDLE_SECONDS_MAX), (True, QUIET_SECONDS_MAX)])
async def test_an_idle_worker_polls_less_and_less_often_until_an_event_arrives(
    database: Database, receives_notifications: bool, longest: float
) -> None:
    signal = RecordingSignal(receives_notifications)
    worker = Worker(database, signal)
    running = asyncio.create_task(worker.run())

    async def waits_longest() -> bool:
        return signal.timeouts[-2:] == [longest] * 2

    async def waits_shortest_again() -> bool:
        return IDLE_SECONDS_MIN in signal.timeouts[len(waits) :]

    await until(waits_longest)
    waits = list(signal.timeouts)
    await record(database, cost())
    await until(waits_shortest_again)
    worker.stop()
    await running

    doubled = [min(longest, IDLE_SECONDS_MIN * 2**times) for times in range(len(waits))]
    assert waits == pytest.approx(doubled)


@NEEDS_LISTEN
async def test_an_idle_service_that_listens_hardly_queries_the_database(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements: list[str] = []
    connect = asyncpg.connect

    async def connect_and_log(**arguments: Any) -> Connection:
        connection = await connect(**arguments)
        connection.add_query_logger(lambda record: statements.append(record.query))
        return connection

    monkeypatch.setattr(asyncpg, "connect", connect_and_log)

    async with background(database, with_worker=True) as (appender, signal):
        await appender.append(request(cost()))
        await is_listening(signal)
        await asyncio.sleep(2)
        before = len(statements)
        await asyncio.sleep(2)
        since = len(statements) - before

    # After two idle seconds, one poll falls into the next two: seven statements, including the pool's ping.
    assert before > 10
    assert since <= 7, statements[before:]
