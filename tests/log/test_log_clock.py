"""The log's clock after the server's was ahead: it runs at half speed, and holds expire soon."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ledger.database import Database
from ledger.log import expiry
from ledger.log.appender import Appender
from ledger.log.expiry import expire_due_holds, expire_holds
from ledger.log.log_clock import notice_lead, read_lead
from ledger.log.notifications import LogSignal
from tests.events import cost, reserve
from tests.log.helpers import query, receipts, record, request, until, value

NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
TYPES = "SELECT type, recorded_at FROM ledger.events ORDER BY position"


class ServerClock:
    """The clock of a server, set by hand."""

    def __init__(self) -> None:
        self.now = NOON + DAY

    def set(self, seconds: float) -> datetime:
        """Set it to some seconds after noon."""
        self.now = NOON + timedelta(seconds=seconds)
        return self.now


@pytest.fixture
def clock() -> ServerClock:
    """A clock that is a day ahead at first."""
    return ServerClock()


@pytest.fixture
async def appender(database: Database, clock: ServerClock) -> AsyncIterator[Appender]:
    async with Appender(database, clock=lambda: clock.now) as appender:
        yield appender


async def append(appender: Appender, *events: dict[str, Any]) -> None:
    receipts(await appender.append(request(*events)))


async def noticed(database: Database, now: datetime) -> float | None:
    async with database.connection() as connection:
        return await notice_lead(connection, now)


async def test_a_hold_that_was_recorded_a_day_ahead_expires_after_twice_its_time(
    database: Database, appender: Appender, clock: ServerClock
) -> None:
    await append(appender, reserve(expires_in=2))
    assert await noticed(database, clock.set(0)) == 86_400

    due = [await expire_due_holds(database, appender, clock.set(seconds)) for seconds in (0, 1, 3.999, 4)]

    assert due == [0, 0, 0, 1]
    expired_at = NOON + DAY + timedelta(seconds=2)
    assert await query(database, TYPES) == [("cost.reserved", NOON + DAY), ("cost.expired", expired_at)]
    assert await value(database, "SELECT count(*) FROM ledger.holds") == 0


async def test_later_holds_do_not_expire_early(database: Database, appender: Appender, clock: ServerClock) -> None:
    await append(appender, cost())
    await noticed(database, clock.set(0))

    clock.set(36_000)
    await append(appender, reserve(expires_in=60))
    due = [await expire_due_holds(database, appender, clock.set(36_000 + seconds)) for seconds in (60, 119, 120)]

    assert due == [0, 0, 1]
    assert (await query(database, TYPES))[1] == ("cost.reserved", NOON + DAY + timedelta(hours=5))


async def test_the_lead_shrinks_until_the_clocks_agree(
    database: Database, appender: Appender, clock: ServerClock
) -> None:
    await append(appender, cost())
    await noticed(database, clock.set(0))
    leads = []

    for hours in (0, 12, 24, 30, 34, 40, 49):
        clock.set(hours * 3_600)
        await append(appender, cost())
        async with database.connection() as connection:
            leads.append(await read_lead(connection, clock.now) / 3_600)

    assert leads == [24, 18, 12, 9, 7, 4, 0]


async def test_the_locked_path_has_the_same_time(database: Database) -> None:
    await record(database, cost(), now=NOON + DAY)
    await noticed(database, NOON)

    await record(database, cost(), now=NOON + timedelta(hours=2))

    assert (await query(database, TYPES))[1] == ("cost.recorded", NOON + DAY + timedelta(hours=1))


async def test_a_lead_is_noticed_once_and_again_if_it_grows(
    database: Database, appender: Appender, clock: ServerClock
) -> None:
    before = await noticed(database, NOON)
    await append(appender, cost())
    first = [await noticed(database, NOON + timedelta(seconds=seconds)) for seconds in (0, 1, 7)]
    clock.now = NOON + 2 * DAY
    await append(appender, cost())
    second = [await noticed(database, NOON + timedelta(seconds=seconds)) for seconds in (8, 9)]

    assert before is None
    assert first == [86_400, None, None]
    assert second == [172_792, None]


@pytest.mark.parametrize("seconds", [0, -0.5, 5])
async def test_a_clock_that_is_not_ahead_by_more_than_a_second_changes_nothing(
    database: Database, appender: Appender, clock: ServerClock, seconds: float
) -> None:
    await append(appender, cost())

    assert await noticed(database, NOON + DAY + timedelta(seconds=seconds)) is None
    assert await query(database, "SELECT ahead_from, ahead_since FROM ledger.log_head") == [(None, None)]


async def test_the_sweeper_notices_the_lead_warns_once_and_expires_the_hold(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(expiry, "PAUSE_SECONDS", 0.05)
    await record(database, reserve(expires_in=1), now=datetime.now(UTC) + DAY)

    async with Appender(database) as appender:
        sweeping = asyncio.create_task(expire_holds(database, appender, LogSignal()))

        async def expired() -> bool:
            return await value(database, "SELECT count(*) FROM ledger.holds") == 0

        await until(expired)
        sweeping.cancel()
        with suppress(asyncio.CancelledError):
            await sweeping

    warnings = [line.getMessage() for line in caplog.records if line.name == expiry.__name__]
    assert len(warnings) == 1
    assert "the log's clock runs at half speed" in warnings[0]
