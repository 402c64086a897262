"""A refused hold is an event too: once for each state of the balances it was refused by."""

from typing import Any
from uuid import UUID, uuid5

import msgspec
import pytest

from ledger.database import Database
from ledger.domain.errors import BudgetExceeded, IllegalTransition
from ledger.domain.event import Receipt
from ledger.log.appender import Appender
from tests.events import campaign, cost, follow, job, reserve
from tests.log.helpers import gathered, query, receipts, record, request, value

DENIED = "SELECT stream_id, data::text FROM ledger.events WHERE type = 'cost.denied' ORDER BY position"


@pytest.fixture
async def opened(database: Database) -> dict[str, Any]:
    """A campaign of 10, with 4 spent."""
    opened = campaign(budget="10")
    await record(database, opened, cost("4", campaign_id=opened["id"]))
    return opened


async def ask(appender: Appender, event: dict[str, Any]) -> BudgetExceeded:
    (refusal,) = await appender.append(request(event))
    assert isinstance(refusal, BudgetExceeded)
    return refusal


async def test_a_refused_hold_is_recorded_with_what_was_asked_and_the_limits_that_failed(
    appender: Appender, database: Database, opened: dict[str, Any]
) -> None:
    queued = job(opened["id"], budget="5")
    await record(database, queued)
    asked = reserve("7.50", agent_job_id=queued["id"], model_used="gpt-4o", description="A text", expires_in=60)

    refusal = await ask(appender, asked)

    scopes = [
        {"scope": "job", "limit": "5", "spent": "0", "held": "0", "requested": "7.5", "available": "5"},
        {"scope": "campaign", "limit": "10", "spent": "4", "held": "0", "requested": "7.5", "available": "6"},
    ]
    assert refusal.scopes == scopes
    columns = "type, version, actor, causation_id::text, campaign_id::text, agent_job_id::text, data::text, text::text"
    ((*stored, data, text),) = await query(database, f"SELECT {columns} FROM ledger.events WHERE position = 4")
    assert stored == ["cost.denied", 1, "ledger", asked["id"], opened["id"], queued["id"]]
    assert msgspec.json.decode(data) == {
        "reserve_stream_id": asked["id"],
        "reserve_id": asked["id"],
        "resource_type": "llm_api",
        "amount": "7.5",
        "currency": "USD",
        "expires_in": 60,
        "model_used": "gpt-4o",
        "agent_job_id": queued["id"],
        "scopes": scopes,
    }
    assert text == '{"description":"A text"}'


async def test_its_stream_is_its_own_and_follows_from_the_hold_and_the_balances(
    appender: Appender, database: Database, opened: dict[str, Any]
) -> None:
    asked = reserve("7", campaign_id=opened["id"])

    await ask(appender, asked)

    ((stream_id, event_id),) = await query(database, "SELECT stream_id, id FROM ledger.events WHERE position = 3")
    assert stream_id == event_id == uuid5(UUID(asked["id"]), f"{asked['id']}|campaign|10|4|0")


async def test_repeating_it_while_nothing_changed_adds_nothing(
    appender: Appender, database: Database, opened: dict[str, Any]
) -> None:
    asked = reserve("7", campaign_id=opened["id"])

    await gathered(ask(appender, asked) for _ in range(5))
    await ask(appender, asked)
    async with Appender(database) as another:
        await ask(another, asked)

    assert len(await query(database, DENIED)) == 1
    assert await value(database, "SELECT position FROM ledger.log_head") == 3


async def test_another_hold_or_another_balance_is_another_refusal(
    appender: Appender, database: Database, opened: dict[str, Any]
) -> None:
    asked = reserve("7", campaign_id=opened["id"])

    await ask(appender, asked)
    await ask(appender, reserve("7", campaign_id=opened["id"]))
    await record(database, cost("1", campaign_id=opened["id"]))
    await ask(appender, asked)

    assert len(await query(database, DENIED)) == 3


async def test_the_holds_own_stream_stays_empty_and_the_same_request_may_succeed_later(
    appender: Appender, database: Database, opened: dict[str, Any]
) -> None:
    asked = reserve("7", campaign_id=opened["id"])
    await ask(appender, asked)

    await record(database, follow(opened, "campaign.budget_changed", {"budget": "11"}))
    (receipt,) = receipts(await appender.append(request(asked)))

    assert (receipt.version, receipt.position, receipt.duplicate) == (1, 5, False)
    assert await query(database, "SELECT spent, held FROM ledger.accounts") == [(4, 7)]


async def test_a_batch_refused_as_a_whole_records_no_refusal(
    appender: Appender, database: Database, opened: dict[str, Any]
) -> None:
    (refusal,) = await appender.append(request(cost(), reserve("7", campaign_id=opened["id"]), cost()))

    assert isinstance(refusal, BudgetExceeded)
    assert refusal.index == 1
    assert await value(database, "SELECT position FROM ledger.log_head") == 2


async def test_events_judged_each_by_itself_record_their_refusals_and_keep_the_others(
    appender: Appender, database: Database, opened: dict[str, Any]
) -> None:
    holds = [reserve("4", campaign_id=opened["id"]) for _ in range(3)]

    answers = await appender.append(request(*holds, cost(), independent=True))

    assert [type(answer) for answer in answers] == [Receipt, BudgetExceeded, BudgetExceeded, Receipt]
    positions = [answer.position for answer in answers if isinstance(answer, Receipt)]
    types = await query(database, "SELECT position, type FROM ledger.events WHERE position > 2 ORDER BY position")
    assert positions == [3, 4]
    assert [name for _, name in types] == ["cost.reserved", "cost.recorded", "cost.denied", "cost.denied"]
    assert await query(database, "SELECT spent, held FROM ledger.accounts") == [(4, 4)]


async def test_a_denied_stream_takes_no_further_event(
    appender: Appender, database: Database, opened: dict[str, Any]
) -> None:
    await ask(appender, reserve("7", campaign_id=opened["id"]))
    stream_id = await value(database, "SELECT stream_id::text FROM ledger.events WHERE position = 3")

    (refusal,) = await appender.append(request(follow({"id": stream_id}, "cost.settled", {"cost": "1"})))

    assert isinstance(refusal, IllegalTransition)
    assert (refusal.status, refusal.allowed_from) == ("denied", ["held", "expired", "released"])
