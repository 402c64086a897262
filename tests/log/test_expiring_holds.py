"""The sweeper: holds that have run out are freed by an event, once, and only then."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ledger.database import Database
from ledger.domain.errors import BudgetExceeded, IllegalTransition
from ledger.log import expiry
from ledger.log.appender import Appender
from ledger.log.expiry import expire_due, sweep
from ledger.log.notifications import LogSignal
from tests.events import campaign, follow, reserve
from tests.log.helpers import gathered, query, receipts, record, request, until, value

EVENTS = "SELECT position, type, actor FROM ledger.events ORDER BY position"
HELD = "SELECT held FROM ledger.accounts"


@pytest.fixture
async def opened(database: Database) -> dict[str, Any]:
    """A campaign of 100, with holds of 10 and 20 that have run out and one of 30 that has not."""
    opened = campaign(budget="100")
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    overdue = [reserve(amount, campaign_id=opened["id"], expires_in=60) for amount in ("10", "20")]
    current = reserve("30", campaign_id=opened["id"], expires_in=7_200)
    await record(database, opened, *overdue, current, now=hour_ago)
    return {"campaign": opened, "overdue": overdue, "current": current}


async def test_holds_that_have_run_out_are_freed_and_others_stay(
    database: Database, appender: Appender, opened: dict[str, Any]
) -> None:
    expired = await expire_due(database, appender)

    assert expired == 2
    events = await query(database, EVENTS)
    assert events[4:] == [(5, "cost.expired", "ledger"), (6, "cost.expired", "ledger")]
    assert await query(database, HELD) == [(30,)]
    assert await query(database, "SELECT stream_id::text FROM ledger.holds") == [(opened["current"]["id"],)]
    assert await expire_due(database, appender) == 0


async def test_until_it_is_expired_an_overdue_hold_still_counts(
    database: Database, appender: Appender, opened: dict[str, Any]
) -> None:
    asked = request(reserve("70", campaign_id=opened["campaign"]["id"]))

    (before,) = await appender.append(asked)
    await expire_due(database, appender)
    after = receipts(await appender.append(asked))

    assert isinstance(before, BudgetExceeded)
    assert before.scopes[0]["held"] == "60"
    assert len(after) == 1


async def test_several_sweepers_at_once_expire_each_hold_once(database: Database, opened: dict[str, Any]) -> None:
    async def sweeper() -> int:
        async with Appender(database) as appender:
            return await expire_due(database, appender)

    due = await gathered(sweeper() for _ in range(4))

    assert max(due) == 2
    assert len(await query(database, EVENTS)) == 4 + 2
    assert await query(database, HELD) == [(30,)]


async def test_a_hold_settled_while_it_was_found_overdue_is_not_expired_any_more(
    database: Database, opened: dict[str, Any]
) -> None:
    settled = follow(opened["overdue"][0], "cost.settled", {"cost": "9"})

    class SettledMeanwhile(Appender):
        async def append(self, asked: Any) -> Any:
            receipts(await super().append(request(settled)))
            return await super().append(asked)

    async with SettledMeanwhile(database) as appender:
        await expire_due(database, appender)

    types = [(position, name) for position, name, _ in (await query(database, EVENTS))[4:]]
    assert types == [(5, "cost.settled"), (6, "cost.expired")]
    assert await query(database, "SELECT spent, held FROM ledger.accounts") == [(9, 30)]


async def test_money_spent_after_the_hold_ran_out_is_a_fact_and_frees_nothing_twice(
    database: Database, appender: Appender, opened: dict[str, Any]
) -> None:
    overdue = opened["overdue"][0]
    await expire_due(database, appender)

    receipts(await appender.append(request(follow(overdue, "cost.settled", {"cost": "12"}))))
    (refusal,) = await appender.append(request(follow(overdue, "cost.released")))

    assert await query(database, "SELECT spent, held FROM ledger.accounts") == [(12, 30)]
    assert isinstance(refusal, IllegalTransition)
    assert refusal.status == "settled"


async def test_a_hold_is_not_expired_before_its_time(database: Database, appender: Appender) -> None:
    await record(database, reserve(expires_in=3_600))

    assert await expire_due(database, appender) == 0
    assert await value(database, "SELECT count(*) FROM ledger.events") == 1


async def test_the_sweeper_works_through_more_holds_than_it_takes_at_once(
    database: Database, appender: Appender, opened: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "SWEEP_HOLDS_MAX", 1)
    monkeypatch.setattr(expiry, "PAUSE_SECONDS_MAX", 0.01)

    sweeping = asyncio.create_task(sweep(database, appender, LogSignal()))

    async def both_expired() -> bool:
        return len(await query(database, EVENTS)) == 6

    await until(both_expired)
    sweeping.cancel()
    with suppress(asyncio.CancelledError):
        await sweeping
    assert await query(database, HELD) == [(30,)]


async def test_the_sweeper_goes_on_after_a_failure(
    database: Database, appender: Appender, opened: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "PAUSE_SECONDS_MAX", 0.01)
    monkeypatch.setattr(expiry, "DUE_HOLDS", "SELECT stream_id FROM ledger.nonexistent WHERE $2 IS NULL LIMIT $1")
    tried = asyncio.Event()
    monkeypatch.setattr(expiry.logger, "exception", lambda *_: tried.set())

    sweeping = asyncio.create_task(sweep(database, appender, LogSignal()))
    await asyncio.wait_for(tried.wait(), 10)
    monkeypatch.undo()

    async def freed() -> bool:
        return await query(database, HELD) == [(30,)]

    await until(freed)
    sweeping.cancel()
    with suppress(asyncio.CancelledError):
        await sweeping
