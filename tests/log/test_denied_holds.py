"""A refused hold is recorded as `cost.denied`, once for each state of the balances that refused it."""

from typing import Any

import msgspec
import pytest

from ledger.database import Database
from ledger.domain.errors import BudgetExceeded, IllegalTransition
from ledger.domain.event import Receipt
from ledger.log.appender import Appender
from tests.events import campaign, cost, event, follow, job, reserve
from tests.log.helpers import gathered, query, receipts, record, request, value

DENIED = "SELECT stream_id, data::text FROM ledger.events WHERE type = 'cost.denied' ORDER BY position"


@pytest.fixture
async def opened(database: Database) -> dict[str, Any]:
    """A campaign with a budget of 10, of which 4 are spent."""
    opened = campaign(budget="10")
    await record(database, opened, cost("4", campaign_id=opened["id"]))
    return opened


async def assert_denied(appender: Appender, event: dict[str, Any]) -> BudgetExceeded:
    (refusal,) = await appender.append(request(event))
    assert isinstance(refusal, BudgetExceeded)
    return refusal


async def test_a_refused_hold_is_recorded_with_the_request_and_the_exceeded_limits(
    appender: Appender, database: Database, opened: dict[str, Any]
) -> None:
    queued = job(opened["id"], budget="5")
    await record(database, queued)
    hold = reserve("7.50", agent_job_id=queued["id"], model_used="gpt-4o", description="A text", expires_in=60)

    refusal = await assert_denied(appender, hold)

    scopes = [
        {"scope": "job", "id": queued["id"], "limit": "5", "spent": "0", "held": "0", "available": "5"},
        {"scope": "campaign", "id": opened["id"], "limit": "10", "spent": "4", "held": "0", "available": "6"},
    ]
    scopes = [{**scope, "requested": "7.5"} for scope in scopes]
    assert refusal.scopes == scopes
    columns = "type, version, actor, causation_id::text, campaign_id::text, agent_job_id::text, data::text, text::text"
    ((*stored, data, text),) = await query(database, f"SELECT {columns} FROM ledger.events WHERE position = 4")
    assert stored == ["cost.denied", 1, "ledger", hold["id"], opened["id"], queued["id"]]
    assert msgspec.json.decode(data) == {
        "reserve_stream_id": hold["id"],
        "reserve_id": hold["id"],
        "resource_type": "llm_api",
        "amount": "7.5",
        "currency": "USD",
        "expires_in": 60,
        "model_used": "gpt-4o",
        "agent_job_id": queued["id"],
        "scopes": scopes,
    }
    assert text == '{"description":"A text"}'


async def test_asking_again_with_unchanged_balances_records_no_further_denial(
    appender: Appender, database: Database, opened: dict[str, Any]
) -> None:
    hold = reserve("7", campaign_id=opened["id"])

    await gathered(assert_denied(appender, hold) for _ in range(5))
    await assert_denied(appender, hold)
    async with Appender(database) as another:
        await assert_denied(another, hold)
    await assert_denied(appender, reserve("7", campaign_id=opened["id"], description="Once more"))

    assert len(await query(database, DENIED)) == 1
    assert await value(database, "SELECT position FROM ledger.log_head") == 3


async def test_another_hold_or_another_balance_is_a_separate_denial(
    appender: Appender, database: Database, opened: dict[str, Any]
) -> None:
    hold = reserve("7", campaign_id=opened["id"])

    await assert_denied(appender, hold)
    await assert_denied(appender, reserve("8", campaign_id=opened["id"]))
    await record(database, cost("1", campaign_id=opened["id"]))
    await assert_denied(appender, hold)

    assert len(await query(database, DENIED)) == 3


async def test_balances_that_come_back_to_the_same_amounts_are_no_separate_denial(
    appender: Appender, database: Database, opened: dict[str, Any]
) -> None:
    asked, held, held_again = (reserve(amount, campaign_id=opened["id"]) for amount in ("4", "3", "3"))

    await record(database, held)
    await assert_denied(appender, asked)
    await record(database, follow(held, "cost.released"), held_again)
    await assert_denied(appender, asked)
    async with Appender(database) as another:
        await assert_denied(another, asked)

    assert len(await query(database, DENIED)) == 1


async def test_the_stream_of_the_hold_stays_empty_and_the_same_request_can_succeed_later(
    appender: Appender, database: Database, opened: dict[str, Any]
) -> None:
    hold = reserve("7", campaign_id=opened["id"])
    await assert_denied(appender, hold)

    await record(database, follow(opened, "campaign.budget_changed", {"budget": "11"}))
    (receipt,) = receipts(await appender.append(request(hold)))

    assert (receipt.version, receipt.position, receipt.duplicate) == (1, 5, False)
    assert await query(database, "SELECT spent, held FROM ledger.accounts") == [(4, 7)]


async def test_an_atomic_batch_that_is_refused_records_no_denial(
    appender: Appender, database: Database, opened: dict[str, Any]
) -> None:
    (refusal,) = await appender.append(request(cost(), reserve("7", campaign_id=opened["id"]), cost()))

    assert isinstance(refusal, BudgetExceeded)
    assert refusal.index == 1
    assert await value(database, "SELECT position FROM ledger.log_head") == 2


async def test_independent_events_record_their_denials_and_the_accepted_events(
    appender: Appender, database: Database, opened: dict[str, Any]
) -> None:
    holds = [reserve("4", campaign_id=opened["id"]) for _ in range(3)]

    answers = await appender.append(request(*holds, cost(), independent=True))

    assert [type(answer) for answer in answers] == [Receipt, BudgetExceeded, BudgetExceeded, Receipt]
    positions = [answer.position for answer in answers if isinstance(answer, Receipt)]
    types = await query(database, "SELECT position, type FROM ledger.events WHERE position > 2 ORDER BY position")
    assert positions == [3, 4]
    assert [name for _, name in types] == ["cost.reserved", "cost.recorded", "cost.denied"]
    assert await query(database, "SELECT spent, held FROM ledger.accounts") == [(4, 4)]


async def test_the_stream_of_a_denial_accepts_no_further_event(
    appender: Appender, database: Database, opened: dict[str, Any]
) -> None:
    await assert_denied(appender, reserve("7", campaign_id=opened["id"]))
    stream_id = await value(database, "SELECT stream_id::text FROM ledger.events WHERE position = 3")

    (refusal,) = await appender.append(request(event("cost.settled", {"cost": "1"}, stream_id=stream_id)))

    assert isinstance(refusal, IllegalTransition)
    assert (refusal.status, refusal.allowed_from) == ("denied", ["held", "expired", "released"])
