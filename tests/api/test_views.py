"""The views for business tools have the figures of the API."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from ledger.domain import money
from tests.conftest import Service
from tests.events import campaign, cost, credit, job, reserve

KEYS = ("day", "campaign_id", "agent_type", "agent_name", "resource_type", "model_used", "provider")
SUMS = ("cost", "tokens_used", "input_tokens", "output_tokens", "cache_read_tokens", "entries", "unpriced")


def plain(value: Any) -> Any:
    """Return a value of a row as the API writes it."""
    if isinstance(value, Decimal):
        return money.plain(value)
    return value if value is None or isinstance(value, int) else str(value)


async def view(shared: Service, name: str, campaign_id: str) -> list[dict[str, Any]]:
    """Return the rows that a view has for a campaign."""
    async with shared.database.connection() as connection:
        rows = await connection.fetch(f"SELECT * FROM {name} WHERE campaign_id = $1", campaign_id)
    return [{key: plain(value) for key, value in row.items()} for row in rows]


async def test_campaign_health_has_the_budget_of_every_campaign(shared: Service) -> None:
    # The second and third percentages lie between two numbers of 10 decimals: half-even decides.
    spent_of_budget = [("33.3333333333333", "100"), ("0.000000000032", "64"), ("0.000000000096", "64"), ("1", "0")]
    created = []
    for spent, budget in [*spent_of_budget, ("200", "7"), ("9", None)]:
        each = campaign(budget)
        of = {"campaign_id": each["id"]}
        await shared.append(each, *[reserve("0.5", **of)] * (budget != "0"), cost(spent, **of))
        created.append(each)
    credited = campaign("3")
    await shared.append(credited, credit("5", campaign_id=credited["id"]))

    for each in [*created, credited]:
        budget = await shared.get(f"/v1/campaigns/{each['id']}/budget")
        [row] = await view(shared, "campaign_health", each["id"])

        names = ("budget", "held", "available", "used_percentage", "burn_rate_per_day", "days_left", "currency")
        assert {"spent": row["spend"], **{name: row[name] for name in names}} == budget


async def test_campaign_health_projects_spend_to_the_end_of_the_campaign(shared: Service) -> None:
    day = timedelta(days=1)
    ends = {"open": None, "over": datetime.now(UTC) - day, "later": datetime.now(UTC) + 70 * day}
    projected = {}
    for name, end in ends.items():
        each = campaign("100", start_date="2025-01-01", **{"end_date": end.isoformat()} if end else {})
        await shared.append(each, cost("7", campaign_id=each["id"]))
        await shared.get(f"/v1/campaigns/{each['id']}")
        [row] = await view(shared, "campaign_health", each["id"])
        projected[name] = row["projected_spend"]

    assert (projected["open"], projected["over"]) == (None, "7")
    # 1 a day, and the test takes less than a day.
    assert Decimal(76) < Decimal(projected["later"]) <= Decimal(77)


async def test_spend_daily_has_the_spend_by_day(shared: Service) -> None:
    created = campaign(budget="1")
    queued = job(created["id"], agent_type="researcher", agent_name="scout")
    of = {"agent_job_id": queued["id"]}
    yesterday = {"occurred_at": (datetime.now(UTC) - timedelta(days=1)).isoformat()}
    usage = {"input_tokens": 30, "cache_read_tokens": 10, "output_tokens": 5}
    model = {"model_used": "m", "tokens_used": 7}
    await shared.append(created, queued, reserve("0.3", **of), cost("0.1", **of), cost("0.25", **model, **of))
    await shared.append({**cost("2", campaign_id=created["id"]), **yesterday}, credit("0.5", **of))
    unknown = {"resource_type": "llm_api", "provider": "nobody", "model_used": "unknown", "usage": usage, **of}
    await shared.append({**cost(), "data": unknown})

    spend = await shared.get("/v1/spend", group_by=",".join(KEYS), campaign_id=created["id"])
    rows = await view(shared, "spend_daily", created["id"])

    def figures(items: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
        return sorted((tuple(each[name] for name in (*KEYS, *SUMS)) for each in items), key=repr)

    assert figures(rows) == figures(spend["items"])
    assert len(rows) == 4
