"""A campaign's budget: balances, burn rate and days left."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.api.helpers import adjust
from tests.conftest import Service
from tests.events import campaign, cost, follow, reserve


def days_ago(days: float) -> str:
    """Return the time `days` ago."""
    return (datetime.now(UTC) - timedelta(days=days)).isoformat()


async def test_without_a_limit_what_depends_on_it_is_null(shared: Service) -> None:
    created = campaign(None)
    path, change = f"/v1/campaigns/{created['id']}", "campaign.budget_changed"
    await shared.append(created, cost("7", campaign_id=created["id"]), reserve("99", campaign_id=created["id"]))
    unlimited, row = await shared.get(f"{path}/budget"), await shared.get(path)

    await shared.append(follow(created, change, {"budget": "70"}))
    limited = await shared.get(f"{path}/budget")
    await shared.append(follow(created, change, {"budget": None}))

    assert unlimited == {
        "budget": None,
        "spent": "7",
        "held": "99",
        "available": None,
        "used_percentage": None,
        "burn_rate_per_day": "1",
        "days_left": None,
        "currency": "USD",
    }
    assert (row["budget"], row["budget_remaining"], row["budget_used_percentage"]) == (None, None, None)
    assert limited == unlimited | {"budget": "70", "available": "-36", "used_percentage": "10", "days_left": "0"}
    assert await shared.get(f"{path}/budget") == unlimited


async def test_a_budget_has_spent_held_available_burn_rate_and_days_left(shared: Service) -> None:
    created = campaign(budget="100", currency="EUR")
    of = {"campaign_id": created["id"]}
    await shared.append(
        created,
        {**cost("1", **of), "occurred_at": days_ago(7.01)},
        {**cost("3.5", **of), "occurred_at": days_ago(6.99)},
        cost("3.5", **of),
        reserve("22", **of),
    )

    budget = await shared.get(f"/v1/campaigns/{created['id']}/budget")

    assert budget == {
        "budget": "100",
        "spent": "8",
        "held": "22",
        "available": "70",
        "used_percentage": "8",
        "burn_rate_per_day": "1",
        "days_left": "70",
        "currency": "EUR",
    }


async def test_without_costs_in_the_last_week_days_left_is_null(shared: Service) -> None:
    created = campaign(budget="0")
    old = {**cost("5", campaign_id=created["id"]), "occurred_at": days_ago(8)}
    await shared.append(created)
    fresh = await shared.get(f"/v1/campaigns/{created['id']}/budget")
    await shared.append(old)

    budget = await shared.get(f"/v1/campaigns/{created['id']}/budget")

    assert (fresh["available"], fresh["used_percentage"]) == ("0", "0")
    assert (budget["burn_rate_per_day"], budget["days_left"]) == ("0", None)
    assert (budget["available"], budget["used_percentage"]) == ("-5", "0")


async def test_an_exceeded_budget_has_no_days_left(shared: Service) -> None:
    created = campaign(budget="1")
    await shared.append(created, cost("8", campaign_id=created["id"]))

    budget = await shared.get(f"/v1/campaigns/{created['id']}/budget")

    assert (budget["available"], budget["used_percentage"], budget["days_left"]) == ("-7", "800", "0")


async def test_the_burn_rate_is_by_time_of_occurrence_and_counts_adjustments_with_their_entry(
    shared: Service,
) -> None:
    created = campaign()
    of = {"campaign_id": created["id"]}
    old = {**cost("7", **of), "occurred_at": days_ago(30)}
    recent = {**cost("7", **of), "occurred_at": days_ago(1)}
    held = {**reserve("7", **of), "occurred_at": days_ago(30)}
    await shared.append(created, old, recent, held, adjust(old, "7"), adjust(recent, "7"))
    before = await shared.get(f"/v1/campaigns/{created['id']}/budget")

    await shared.append(follow(held, "cost.settled", {"cost": "7"}))

    after = await shared.get(f"/v1/campaigns/{created['id']}/budget")
    assert (before["spent"], before["burn_rate_per_day"]) == ("28", "2")
    assert (after["spent"], after["burn_rate_per_day"]) == ("35", "3")


@pytest.mark.parametrize(
    ("budget", "spent", "days_left"),
    [
        ("10", "5", "7"),
        ("12", "5", "9.8"),
        ("1000000", "8.5", "823522.4117647059"),
        ("9999999999", "0.0000000004", "174999999982499999993"),
        ("10", "0.0000000001", "699999999993"),
    ],
)
async def test_days_left_are_computed_from_exact_amounts(
    shared: Service, budget: str, spent: str, days_left: str
) -> None:
    created = campaign(budget=budget)
    await shared.append(created, cost(spent, campaign_id=created["id"]))

    assert (await shared.get(f"/v1/campaigns/{created['id']}/budget"))["days_left"] == days_left
