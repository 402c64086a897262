"""Campaign events, and the amounts of cost events, folded into a campaign's row in memory."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from tests.events import campaign, cost, follow, job, reserve
from tests.projections.helpers import NOON, MemoryLog, defaults


def changed(*later: tuple[str, dict[str, Any]], **data: Any) -> dict[str, Any]:
    """The columns of a campaign that these events change after its creation, with their new values."""
    log, opened = MemoryLog(), campaign(**data)
    log.append(opened)
    before = log.row("campaigns", opened)
    log.append(*(follow(opened, name, given) for name, given in later))
    after = log.row("campaigns", opened)
    assert after.pop("position") == len(later) + 1
    assert after.pop("updated_at") == NOON + timedelta(seconds=len(later))
    return {column: value for column, value in after.items() if before[column] != value}


def test_a_campaign_is_created_as_a_draft_with_nothing_spent() -> None:
    log = MemoryLog()
    opened = campaign(
        "250.5", name="Launch", description="A text", currency="EUR", end_date="2025-02-01T10:00:00+01:00"
    )

    log.append(opened)

    assert log.row("campaigns", opened) == defaults("campaigns") | {
        "id": UUID(opened["id"]),
        "created_at": NOON,
        "updated_at": NOON,
        "position": 1,
        "name": "Launch",
        "description": "A text",
        "status": "draft",
        "budget": Decimal("250.5"),
        "currency": "EUR",
        "start_date": datetime(2025, 1, 1, tzinfo=UTC),
        "end_date": datetime(2025, 2, 1, 9, tzinfo=UTC),
        "spend": 0,
        "held": 0,
        "impressions": 0,
        "clicks": 0,
        "conversions": 0,
        "revenue": 0,
        "roi": 0,
    }


@pytest.mark.parametrize(
    ("later", "difference"),
    [
        (["activated"], {"status": "active"}),
        (["activated", "paused"], {"status": "paused"}),
        (["activated", "paused", "activated"], {"status": "active"}),
        (["activated", "completed"], {"status": "completed"}),
        (["archived"], {"status": "archived"}),
    ],
)
def test_events_change_the_status(later: list[str], difference: dict[str, Any]) -> None:
    assert changed(*((f"campaign.{step}", {}) for step in later)) == difference


@pytest.mark.parametrize(
    ("details", "difference"),
    [
        ({"name": "Another"}, {"name": "Another"}),
        ({"description": ""}, {"description": ""}),
        ({"start_date": "2024-12-31"}, {"start_date": datetime(2024, 12, 31, tzinfo=UTC)}),
        ({"end_date": "2026-01-01"}, {"end_date": datetime(2026, 1, 1, tzinfo=UTC)}),
        ({}, {}),
    ],
)
def test_changed_details_replace_only_the_fields_they_name(details: dict[str, Any], difference: dict[str, Any]) -> None:
    assert changed(("campaign.details_changed", details), description="A text") == difference


def test_a_new_budget_replaces_the_old_one() -> None:
    assert changed(("campaign.budget_changed", {"budget": "0.5"})) == {"budget": Decimal("0.5")}


def test_metrics_add_up() -> None:
    first = {"impressions": 5, "clicks": 3, "conversions": 1, "revenue": "2.5"}
    second = {"impressions": 10**12, "revenue": "0.0000000001"}

    difference = changed(
        ("campaign.activated", {}), ("campaign.metrics_recorded", first), ("campaign.metrics_recorded", second)
    )

    assert difference == {
        "status": "active",
        "impressions": 10**12 + 5,
        "clicks": 3,
        "conversions": 1,
        "revenue": Decimal("2.5000000001"),
    }


def test_a_deleted_campaign_has_no_row() -> None:
    log, opened = MemoryLog(), campaign()

    log.append(opened, follow(opened, "campaign.deleted"))

    assert log.rows("campaigns") == []


def test_costs_change_spend_and_held() -> None:
    log, opened = MemoryLog(), campaign("100")
    held = reserve("20", campaign_id=opened["id"])
    recorded = cost("5.25", campaign_id=opened["id"])
    balances = []

    for step in (
        opened,
        recorded,
        held,
        follow(held, "cost.settled", {"cost": "30"}),
        follow(recorded, "cost.adjusted", {"amount": "-5.25", "reason": "Not ours"}),
    ):
        log.append(step)
        row = log.row("campaigns", opened)
        balances.append((row["spend"], row["held"], row["position"]))

    assert balances == [
        (0, 0, 1),
        (Decimal("5.25"), 0, 2),
        (Decimal("5.25"), 20, 3),
        (Decimal("35.25"), 0, 4),
        (Decimal("30.00"), 0, 5),
    ]


def test_a_cost_counts_for_the_campaign_of_its_job() -> None:
    log, opened = MemoryLog(), campaign()
    queued = job(opened["id"])

    log.append(opened, queued, cost("3", agent_job_id=queued["id"]))

    assert log.row("campaigns", opened)["spend"] == 3


@pytest.mark.parametrize(
    ("revenue", "spend", "roi"),
    [
        ("8250", "2500", "2.3"),
        ("0", "4", "-1"),
        ("1", "3", "-0.6666666667"),
        # Ties go to the even digit.
        ("32.0000000016", "32", "0"),
        ("32.0000000048", "32", "0.0000000002"),
        ("9999999999.9999999999", "0.0000000001", "99999999999999999998"),
        ("5", "0", "0"),
    ],
)
def test_the_roi_is_exact_and_rounded_half_even_to_10_places(revenue: str, spend: str, roi: str) -> None:
    for earlier, later in ((0, 1), (1, 0)):
        log, opened = MemoryLog(), campaign()
        steps = [
            follow(opened, "campaign.metrics_recorded", {"revenue": revenue}),
            cost(spend, campaign_id=opened["id"]),
        ]

        log.append(opened, follow(opened, "campaign.activated"), steps[earlier], steps[later])

        assert log.row("campaigns", opened)["roi"] == Decimal(roi)


def test_sums_may_exceed_the_range_of_one_amount() -> None:
    log, opened = MemoryLog(), campaign()
    largest = "9999999999.9999999999"

    log.append(opened, follow(opened, "campaign.activated"))
    log.append(*(cost(largest, campaign_id=opened["id"]) for _ in range(3)))
    log.append(*(follow(opened, "campaign.metrics_recorded", {"revenue": largest}) for _ in range(2)))

    row = log.row("campaigns", opened)
    assert (row["spend"], row["revenue"]) == (Decimal("29999999999.9999999997"), Decimal("19999999999.9999999998"))
    assert row["roi"] == Decimal("-0.3333333333")
