"""Expiry of holds: an overdue hold is released by one `cost.expired` event, and not before it is due."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from ledger.database import Database
from ledger.domain.errors import BudgetExceeded, IllegalTransition
from ledger.domain.event import Request
from ledger.log import expiry
from ledger.log.appender import Appender
from ledger.log.expiry import expire_due_holds, expire_holds
from ledger.log.notifications import LogSignal
from tests.events import campaign, follow, reserve
from tests.log.helpers import gathered, query, receipts, record, request, until, value

EVENTS = "SELECT position, type, actor FROM ledger.events ORDER BY position"
HELD = "SELECT held FROM ledger.accounts"


@pytest.fixture
async def opened(database: Database) -> dict[str, Any]:
    """A campaign with a budget of 100, overdue holds of 10 and 20, and a hold of 30 that is not due."""
    opened = campaign(budget="100")
    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)
    overdue = [reserve(amount, campaign_id=opened["id"], expires_in=60) for amount in ("10", "20")]
    current = reserve("30", campaign_id=opened["id"], expires_in=7_200)
    await record(database, opened, *overdue, current, now=an_hour_ago)
    return {"campaign": opened, "overdue": overdue, "current": current}


async def test_overdue_holds_are_released_and_others_stay(
    database: Database, appender: Appender, opened: dict[str, Any]
) -> None:
    expired = await expire_due_holds(database, appender)

    assert expired == 2
    events = await query(database, EVENTS)
    assert events[4:] == [(5, "cost.expired", "ledger"), (6, "cost.expired", "ledger")]
    assert await query(database, HELD) == [(30,)]
    assert await query(database, "SELECT stream_id::text FROM ledger.holds") == [(opened["current"]["id"],)]
    assert await expire_due_holds(database, appender) == 0


async def test_an_overdue_hold_counts_until_it_is_expired(
    database: Database, appender: Appender, opened: dict[str, Any]
) -> None:
    reservation = request(reserve("70", campaign_id=opened["campaign"]["id"]))

    (before,) = await appender.append(reservation)
    await expire_due_holds(database, appender)
    after = receipts(await appender.append(reservation))

    assert isinstance(before, BudgetExceeded)
    assert before.scopes[0]["held"] == "60"
    assert len(after) == 1


async def test_several_processes_expire_each_hold_once(database: Database, opened: dict[str, Any]) -> None:
    async def expire() -> int:
        async with Appender(database) as appender:
            return await expire_due_holds(database, appender)

    due = await gathered(expire() for _ in range(4))

    assert max(due) == 2
    assert len(await query(database, EVENTS)) == 4 + 2
    assert await query(database, HELD) == [(30,)]


async def test_a_hold_settled_after_it_was_found_overdue_is_not_expired(
    database: Database, opened: dict[str, Any]
) -> None:
    settled = follow(opened["overdue"][0], "cost.settled", {"cost": "9"})

    class SettledMeanwhile(Appender):
        async def append(self, expiries: Any) -> Any:
            receipts(await super().append(request(settled)))
            return await super().append(expiries)

    async with SettledMeanwhile(database) as appender:
        await expire_due_holds(database, appender)

    types = [(position, name) for position, name, _ in (await query(database, EVENTS))[4:]]
    assert types == [(5, "cost.settled"), (6, "cost.expired")]
    assert await query(database, "SELECT spent, held FROM ledger.accounts") == [(9, 30)]


async def test_a_hold_settled_after_it_expired_is_recorded_and_releases_nothing_twice(
    database: Database, appender: Appender, opened: dict[str, Any]
) -> None:
    overdue = opened["overdue"][0]
    await expire_due_holds(database, appender)

    receipts(await appender.append(request(follow(overdue, "cost.settled", {"cost": "12"}))))
    (refusal,) = await appender.append(request(follow(overdue, "cost.released")))

    assert await query(database, "SELECT spent, held FROM ledger.accounts") == [(12, 30)]
    assert isinstance(refusal, IllegalTransition)
    assert refusal.status == "settled"


async def test_a_hold_is_not_expired_before_its_time(database: Database, appender: Appender) -> None:
    await record(database, reserve(expires_in=3_600))

    assert await expire_due_holds(database, appender) == 0
    assert await value(database, "SELECT count(*) FROM ledger.events") == 1


async def test_more_overdue_holds_than_fit_in_one_request_are_all_expired(
    database: Database, appender: Appender, opened: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "EXPIRED_HOLDS_MAX", 1)
    monkeypatch.setattr(expiry, "PAUSE_SECONDS", 0.01)

    expiring = asyncio.create_task(expire_holds(database, appender, LogSignal()))

    async def both_expired() -> bool:
        return len(await query(database, EVENTS)) == 6

    await until(both_expired)
    expiring.cancel()
    with suppress(asyncio.CancelledError):
        await expiring
    assert await query(database, HELD) == [(30,)]


async def test_expiring_holds_continues_after_a_failure(
    database: Database, appender: Appender, opened: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(expiry, "DUE_HOLDS", "SELECT stream_id FROM ledger.nonexistent WHERE $2 IS NULL LIMIT $1")
    failed = asyncio.Event()
    monkeypatch.setattr(expiry.logger, "log", lambda *_, **__: failed.set())

    expiring = asyncio.create_task(expire_holds(database, appender, LogSignal()))
    await asyncio.wait_for(failed.wait(), 10)
    monkeypatch.undo()

    async def released() -> bool:
        return await query(database, HELD) == [(30,)]

    await until(released)
    expiring.cancel()
    with suppress(asyncio.CancelledError):
        await expiring


async def test_an_extended_hold_is_not_expired_by_an_earlier_look(
    database: Database, appender: Appender, opened: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweeper has seen that the hold is due, and then its extension is recorded."""
    first, second = opened["overdue"]
    append = appender.append

    async def extend_and_append(expiries: Request) -> Any:
        await append(request(follow(first, "cost.extended", {"expires_in": 600})))
        return await append(expiries)

    monkeypatch.setattr(appender, "append", extend_and_append)

    due = await expire_due_holds(database, appender)

    expired = await query(database, "SELECT stream_id::text FROM ledger.events WHERE type = 'cost.expired'")
    assert (due, expired) == (2, [(second["id"],)])
    seconds = (
        "SELECT extract(epoch FROM expires_at - now())::int BETWEEN 500 AND 600 FROM ledger.holds WHERE stream_id = $1"
    )
    assert await query(database, seconds, UUID(first["id"])) == [(True,)]
    assert await expire_due_holds(database, appender) == 0


async def test_a_hold_that_was_extended_to_a_sooner_time_expires_then(database: Database, appender: Appender) -> None:
    held = reserve(expires_in=604_800)
    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)
    await record(database, held, now=an_hour_ago)
    await record(database, follow(held, "cost.extended", {"expires_in": 60}), now=an_hour_ago)

    assert await expire_due_holds(database, appender) == 1
    assert await value(database, "SELECT count(*) FROM ledger.holds") == 0
