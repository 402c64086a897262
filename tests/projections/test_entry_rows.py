"""Cost events folded into a budget entry's row in memory."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from tests.events import campaign, cost, follow, job, reserve
from tests.log.helpers import request
from tests.projections.helpers import NOON, MemoryLog, defaults, expiry_request

AT = datetime(2024, 6, 1, tzinfo=UTC)
WHEN = "2024-06-01T00:00:00Z"


def second(number: int) -> datetime:
    return NOON + timedelta(seconds=number)


def test_a_recorded_cost_is_settled() -> None:
    log, opened = MemoryLog(), campaign(currency="EUR")
    queued = job(opened["id"])
    recorded = cost(
        "0.000125",
        resource_type="web_search",
        tokens_used=7,
        model_used="gpt-4o",
        provider="openai",
        description="A text",
        agent_job_id=queued["id"],
    ) | {"occurred_at": WHEN}

    log.append(opened, queued, recorded)

    assert log.row("budget_entries", recorded) == defaults("budget_entries") | {
        "id": UUID(recorded["id"]),
        "created_at": second(2),
        "updated_at": second(2),
        "position": 3,
        "resource_type": "web_search",
        "status": "settled",
        "currency": "EUR",
        "occurred_at": AT,
        "agent_job_id": UUID(queued["id"]),
        "campaign_id": UUID(opened["id"]),
        "cost": Decimal("0.000125"),
        "tokens_used": 7,
        "held": 0,
        "model_used": "gpt-4o",
        "provider": "openai",
        "description": "A text",
        "expires_at": None,
        "actor": "local",
        "labels": "{}",
    }


def test_the_currency_is_that_of_the_job_without_a_campaign_and_usd_without_either() -> None:
    log, queued = MemoryLog(), job(currency="CHF")
    of_job, without_parent, explicit = cost(agent_job_id=queued["id"]), cost(), cost(currency="JPY")

    log.append(queued, of_job, without_parent, explicit)

    assert [entry["currency"] for entry in log.rows("budget_entries")] == ["CHF", "USD", "JPY"]


def held_by(**data: Any) -> tuple[MemoryLog, dict[str, Any]]:
    log = MemoryLog()
    held = reserve("20", model_used="gpt-4o", provider="openai", **data)
    log.append(held)
    return log, held


def test_a_reserved_amount_is_held_until_it_expires() -> None:
    log, held = held_by(expires_in=60)
    log.append(reserve("1"))

    row = log.row("budget_entries", held)
    assert (row["status"], row["held"], row["cost"], row["tokens_used"]) == ("held", 20, 0, 0)
    assert (row["occurred_at"], row["expires_at"]) == (NOON, NOON + timedelta(seconds=60))
    assert log.rows("budget_entries")[1]["expires_at"] == second(1) + timedelta(seconds=900)


def test_a_settled_hold_has_the_cost_and_the_time_of_the_settlement() -> None:
    log, held = held_by()
    before = log.row("budget_entries", held)

    settlement = {"cost": "21.5", "tokens_used": 9, "model_used": "gpt-4o-mini"}
    log.append(follow(held, "cost.settled", settlement, occurred_at=WHEN))

    assert log.row("budget_entries", held) == before | {
        "status": "settled",
        "held": 0,
        "cost": Decimal("21.5"),
        "tokens_used": 9,
        "model_used": "gpt-4o-mini",
        "provider": "openai",
        "occurred_at": AT,
        "position": 2,
        "updated_at": second(1),
    }


def test_a_released_hold_holds_nothing() -> None:
    log, held = held_by()
    before = log.row("budget_entries", held)

    log.append(follow(held, "cost.released", {"reason": "Not needed"}))

    after = before | {"status": "released", "held": 0, "position": 2, "updated_at": second(1)}
    assert log.row("budget_entries", held) == after


def test_an_expired_hold_holds_nothing_and_may_still_be_settled() -> None:
    log, held = held_by(expires_in=1)
    before = log.row("budget_entries", held)

    log.append(expiry_request(held))
    expired = log.row("budget_entries", held)
    log.append(follow(held, "cost.settled", {"cost": "3"}))
    settled = log.row("budget_entries", held)

    assert expired == before | {"status": "expired", "held": 0, "position": 2, "updated_at": second(1)}
    assert (settled["status"], settled["cost"], settled["held"]) == ("settled", 3, 0)


def test_an_adjustment_changes_cost_and_tokens_but_not_the_time() -> None:
    log, recorded = MemoryLog(), cost("5", tokens_used=10) | {"occurred_at": WHEN}
    log.append(recorded)
    before = log.row("budget_entries", recorded)

    log.append(follow(recorded, "cost.adjusted", {"amount": "-4.5", "tokens_used": -10, "reason": "Too much"}))

    assert log.row("budget_entries", recorded) == before | {
        "cost": Decimal("0.5"),
        "adjusted": Decimal("-4.5"),
        "tokens_used": 0,
        "position": 2,
        "updated_at": second(1),
    }


def test_a_denied_hold_has_no_entry_and_changes_no_amounts() -> None:
    log, opened = MemoryLog(), campaign("1")
    log.append(opened)
    before = log.row("campaigns", opened)

    log.append(request(reserve("2", campaign_id=opened["id"])))

    assert [event.type for event in log.events] == ["campaign.created", "cost.denied"]
    assert log.rows("budget_entries") == []
    assert log.row("campaigns", opened) == before


def test_an_entry_of_a_campaign_that_was_deleted_names_none() -> None:
    log, opened = MemoryLog(), campaign()
    released = reserve("5", campaign_id=opened["id"])
    log.append(opened, released, follow(released, "cost.released"), follow(opened, "campaign.deleted"))

    log.append(follow(released, "cost.settled", {"cost": "5"}))

    row = log.row("budget_entries", released)
    assert (row["campaign_id"], row["cost"], row["status"]) == (None, 5, "settled")
    assert log.rows("campaigns") == []
