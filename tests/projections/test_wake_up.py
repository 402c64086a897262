"""Waking the worker and the sweeper: at once where they can be told, and asking less and less while nothing happens."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import URL, event

from ledger.database import Database
from ledger.log.notifications import IDLE_SECONDS_MAX, QUIET_SECONDS_MAX, LogSignal
from ledger.runtime import background
from projections import worker as worker_module
from projections.worker import IDLE_SECONDS_MIN, Worker
from tests.events import campaign, cost, reserve
from tests.log.helpers import query, record, request, until, value
from tests.projections.helpers import folded_up_to

NEEDS_TO_HEAR = pytest.mark.direct
"""A pooler in transaction mode lets nobody LISTEN."""


@pytest.fixture
async def other_engine(database_url: URL) -> AsyncIterator[Database]:
    """As another process would have it."""
    database = Database(database_url)
    yield database
    await database.close()


async def hears(signal: LogSignal) -> None:
    async def listening() -> bool:
        return signal.receives_notifications

    await until(listening)


@NEEDS_TO_HEAR
async def test_an_append_elsewhere_wakes_a_worker_that_would_look_again_in_ten_minutes(
    database: Database, other_engine: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "IDLE_SECONDS_MIN", 600)
    async with (
        background(database, with_worker=True) as (_, signal),
        background(other_engine, with_worker=False) as (appender, _),
    ):
        await hears(signal)
        for position in range(1, 4):
            await appender.append(request(cost()))

            await folded_up_to(other_engine, position)
            # It has looked once more, found nothing, and sleeps.
            await asyncio.sleep(0.1)


async def test_an_append_in_the_same_process_needs_no_database_to_wake_the_worker(
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


@NEEDS_TO_HEAR
async def test_a_hold_made_elsewhere_is_freed_when_it_runs_out_though_the_sweeper_sleeps(
    database: Database, other_engine: Database
) -> None:
    opened = campaign("100")
    await record(database, opened, reserve("5", campaign_id=opened["id"], expires_in=3_600))
    async with (
        background(database, with_worker=True) as (_, signal),
        background(other_engine, with_worker=False) as (appender, _),
    ):
        await hears(signal)
        # By now it sleeps until the hour is over.
        await asyncio.sleep(1.2)

        await appender.append(request(reserve("7", campaign_id=opened["id"], expires_in=1)))

        async def freed() -> bool:
            return bool(await value(other_engine, "SELECT held FROM ledger.accounts") == 5)

        await until(freed)

    expired = "SELECT extract(epoch FROM recorded_at - occurred_at) < 1 FROM ledger.events WHERE type = 'cost.expired'"
    assert await query(other_engine, expired) == [(True,)]


class Impatient(LogSignal):
    """Never really waits; remembers for how long it was asked to."""

    def __init__(self, receives_notifications: bool) -> None:
        super().__init__()
        self.receives_notifications = receives_notifications
        self.asked: list[float] = []

    async def wait(self, heard: int, seconds: float) -> None:
        self.asked.append(seconds)
        await asyncio.sleep(0)


@pytest.mark.parametrize(("receives_notifications", "longest"), [(False, IDLE_SECONDS_MAX), (True, QUIET_SECONDS_MAX)])
async def test_an_idle_worker_asks_less_and_less_until_there_is_something(
    database: Database, receives_notifications: bool, longest: float
) -> None:
    signal = Impatient(receives_notifications)
    worker = Worker(database, signal)
    running = asyncio.create_task(worker.run())

    async def asked_for_long() -> bool:
        return signal.asked[-2:] == [longest] * 2

    async def asks_often_again() -> bool:
        return IDLE_SECONDS_MIN in signal.asked[len(waits) :]

    await until(asked_for_long)
    waits = list(signal.asked)
    await record(database, cost())
    await until(asks_often_again)
    worker.stop()
    await running

    doubled = [min(longest, IDLE_SECONDS_MIN * 2**times) for times in range(len(waits))]
    assert waits == pytest.approx(doubled)


@NEEDS_TO_HEAR
async def test_a_service_that_is_told_of_appends_leaves_its_database_alone_while_there_are_none(
    database: Database,
) -> None:
    statements: list[str] = []

    @event.listens_for(database.engine.sync_engine, "connect")
    def listen(connection: Any, _: Any) -> None:
        connection.driver_connection.add_query_logger(lambda said: statements.append(said.query))

    async with background(database, with_worker=True) as (appender, signal):
        await appender.append(request(cost()))
        await hears(signal)
        await asyncio.sleep(2)
        before = len(statements)
        await asyncio.sleep(2)
        since = len(statements) - before

    # After two idle seconds one look, of seven statements with the pool's ping, falls into the next two.
    assert before > 10
    assert since <= 7, statements[before:]
