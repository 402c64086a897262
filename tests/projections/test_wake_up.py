"""Waking the worker and the sweeper: at once where they can be told, and asking less and less while nothing happens."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import URL, event
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.database import make_engine
from ledger.log.bell import IDLE_SECONDS_MAX, QUIET_SECONDS_MAX, Bell
from projections import worker as worker_module
from projections.background import background
from projections.worker import IDLE_SECONDS_MIN, Worker
from tests.events import campaign, cost, reserve
from tests.log.helpers import query, record, request, until, value
from tests.projections.helpers import folded_up_to

NEEDS_TO_HEAR = pytest.mark.direct
"""A pooler in transaction mode lets nobody LISTEN."""


@pytest.fixture
async def other_engine(database_url: URL) -> AsyncIterator[AsyncEngine]:
    """As another process would have it."""
    engine = make_engine(database_url)
    yield engine
    await engine.dispose()


async def hears(bell: Bell) -> None:
    async def listening() -> bool:
        return bell.hears_others

    await until(listening)


@NEEDS_TO_HEAR
async def test_an_append_elsewhere_wakes_a_worker_that_would_look_again_in_ten_minutes(
    engine: AsyncEngine, other_engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "IDLE_SECONDS_MIN", 600)
    async with (
        background(engine, with_worker=True) as (_, bell),
        background(other_engine, with_worker=False) as (appender, _),
    ):
        await hears(bell)
        for position in range(1, 4):
            await appender.append(request(cost()))

            await folded_up_to(other_engine, position)
            # It has looked once more, found nothing, and sleeps.
            await asyncio.sleep(0.1)


async def test_an_append_in_the_same_process_needs_no_database_to_wake_the_worker(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "IDLE_SECONDS_MIN", 600)
    monkeypatch.setattr("ledger.log.bell.CHANNEL", "elsewhere")
    async with background(engine, with_worker=True) as (appender, bell):
        for position in range(1, 4):
            await appender.append(request(cost()))

            await folded_up_to(engine, position)
            await asyncio.sleep(0.1)

    assert not bell.hears_others


@NEEDS_TO_HEAR
async def test_a_hold_made_elsewhere_is_freed_when_it_runs_out_though_the_sweeper_sleeps(
    engine: AsyncEngine, other_engine: AsyncEngine
) -> None:
    opened = campaign("100")
    await record(engine, opened, reserve("5", campaign_id=opened["id"], expires_in=3_600))
    async with (
        background(engine, with_worker=True) as (_, bell),
        background(other_engine, with_worker=False) as (appender, _),
    ):
        await hears(bell)
        # By now it sleeps until the hour is over.
        await asyncio.sleep(1.2)

        await appender.append(request(reserve("7", campaign_id=opened["id"], expires_in=1)))

        async def freed() -> bool:
            return bool(await value(other_engine, "SELECT held FROM ledger.accounts") == 5)

        await until(freed)

    expired = "SELECT extract(epoch FROM recorded_at - occurred_at) < 1 FROM ledger.events WHERE type = 'cost.expired'"
    assert await query(other_engine, expired) == [(True,)]


class Impatient(Bell):
    """Never really waits; remembers for how long it was asked to."""

    def __init__(self, hears_others: bool) -> None:
        super().__init__()
        self.hears_others = hears_others
        self.asked: list[float] = []

    async def wait(self, heard: int, seconds: float) -> None:
        self.asked.append(seconds)
        await asyncio.sleep(0)


@pytest.mark.parametrize(("hears_others", "longest"), [(False, IDLE_SECONDS_MAX), (True, QUIET_SECONDS_MAX)])
async def test_an_idle_worker_asks_less_and_less_until_there_is_something(
    engine: AsyncEngine, hears_others: bool, longest: float
) -> None:
    bell = Impatient(hears_others)
    worker = Worker(engine, bell)
    running = asyncio.create_task(worker.run())

    async def asked_for_long() -> bool:
        return bell.asked[-2:] == [longest] * 2

    async def asks_often_again() -> bool:
        return IDLE_SECONDS_MIN in bell.asked[len(waits) :]

    await until(asked_for_long)
    waits = list(bell.asked)
    await record(engine, cost())
    await until(asks_often_again)
    worker.stop()
    await running

    doubled = [min(longest, IDLE_SECONDS_MIN * 2**times) for times in range(len(waits))]
    assert waits == pytest.approx(doubled)


@NEEDS_TO_HEAR
async def test_a_service_that_is_told_of_appends_leaves_its_database_alone_while_there_are_none(
    engine: AsyncEngine,
) -> None:
    statements: list[str] = []

    @event.listens_for(engine.sync_engine, "connect")
    def listen(connection: Any, _: Any) -> None:
        connection.driver_connection.add_query_logger(lambda said: statements.append(said.query))

    async with background(engine, with_worker=True) as (appender, bell):
        await appender.append(request(cost()))
        await hears(bell)
        await asyncio.sleep(2)
        before = len(statements)
        await asyncio.sleep(2)
        since = len(statements) - before

    # After two idle seconds one look, of seven statements with the pool's ping, falls into the next two.
    assert before > 10
    assert since <= 7, statements[before:]
