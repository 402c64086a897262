"""Spend: sums of settled costs by keys."""

from typing import Any

import pytest

from tests.api.helpers import adjust
from tests.conftest import Service
from tests.events import campaign, cost, follow, job, reserve


@pytest.fixture(scope="module")
async def spending(shared: Service) -> dict[str, str]:
    """Create a campaign, its job and five costs in USD, and a cost in EUR without a campaign; return the ids."""
    created = campaign()
    queued = job(created["id"], agent_type="optimizer")
    of, of_job = {"campaign_id": created["id"]}, {"agent_job_id": queued["id"]}
    costs = [
        {**cost("1", model_used="m1", provider="p", tokens_used=10, **of_job), "occurred_at": "2025-01-01T00:00:00Z"},
        {**cost("2", model_used="m1", tokens_used=20, **of), "occurred_at": "2025-01-01T23:59:59.999999Z"},
        {**cost("4", model_used="m2", tokens_used=40, **of), "occurred_at": "2025-01-02T00:30:00+01:00"},
        {**cost("8", resource_type="media", **of), "occurred_at": "2025-01-02T00:00:00Z"},
        {**cost("0.5", **of), "occurred_at": "2025-01-03T12:00:00Z"},
    ]
    elsewhere = {**cost("16", currency="EUR", tokens_used=1), "occurred_at": "2025-01-02T12:00:00Z"}
    held = reserve("32", **of)
    await shared.append(created, queued, *costs, elsewhere, held, adjust(costs[0], "0.25", tokens_used=-3))
    return {"campaign": created["id"], "job": queued["id"]}


ADDED = {
    *("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens"),
    *("unpriced", "campaign_name"),
}
"""Members that the first release does not have."""


def as_before(answer: dict[str, Any]) -> dict[str, Any]:
    """Return a response as the first release made it; its sums must have the further members."""
    assert all(ADDED - {"campaign_name"} <= item.keys() for item in answer["items"])
    return {"items": [{name: item[name] for name in item if name not in ADDED} for item in answer["items"]]}


def rows(answer: dict[str, Any], *names: str) -> list[tuple[Any, ...]]:
    """Return the items of a response as tuples of these columns."""
    return [tuple(item[name] for name in names) for item in answer["items"]]


async def spend(service: Service, spending: dict[str, str], **parameters: str) -> dict[str, Any]:
    """Return the spend of the campaign."""
    answer: dict[str, Any] = await service.get("/v1/spend", campaign_id=spending["campaign"], **parameters)
    return answer


async def test_without_group_by_there_is_one_sum_for_each_currency(shared: Service, spending: dict[str, str]) -> None:
    everything = {"from": "2025-01-01T00:00:00Z", "to": "2025-01-04T00:00:00Z"}

    answer = await shared.get("/v1/spend", **everything)

    assert as_before(answer) == {
        "items": [
            {"currency": "EUR", "cost": "16", "tokens_used": 1, "entries": 1},
            {"currency": "USD", "cost": "15.75", "tokens_used": 67, "entries": 5},
        ]
    }


@pytest.mark.parametrize(
    ("key", "expected_rows"),
    [
        (
            "day",
            [("2025-01-01", "7.25", 67, 3), ("2025-01-02", "8", 0, 1), ("2025-01-03", "0.5", 0, 1)],
        ),
        ("resource_type", [("llm_api", "7.75", 67, 4), ("media", "8", 0, 1)]),
        ("model_used", [("m1", "3.25", 27, 2), ("m2", "4", 40, 1), (None, "8.5", 0, 2)]),
        ("provider", [("p", "1.25", 7, 1), (None, "14.5", 60, 4)]),
        ("campaign_id", [("campaign", "15.75", 67, 5)]),
        ("agent_job_id", [("job", "1.25", 7, 1), (None, "14.5", 60, 4)]),
        ("agent_type", [("optimizer", "1.25", 7, 1), (None, "14.5", 60, 4)]),
    ],
)
async def test_spend_is_summed_by_each_key(
    shared: Service, spending: dict[str, str], key: str, expected_rows: list[tuple[Any, ...]]
) -> None:
    answer = await spend(shared, spending, group_by=key)

    assert [set(item) for item in as_before(answer)["items"]] == [
        {key, "currency", "cost", "tokens_used", "entries"}
    ] * len(expected_rows)
    expected = [(spending.get(first, first) if first else None, *rest) for first, *rest in expected_rows]
    assert rows(answer, key, "cost", "tokens_used", "entries") == expected


async def test_several_keys_are_summed_together(shared: Service, spending: dict[str, str]) -> None:
    answer = await spend(shared, spending, group_by="resource_type,day")

    assert rows(answer, "resource_type", "day", "currency", "cost") == [
        ("llm_api", "2025-01-01", "USD", "7.25"),
        ("llm_api", "2025-01-03", "USD", "0.5"),
        ("media", "2025-01-02", "USD", "8"),
    ]


async def test_all_keys_together_give_one_sum_for_each_cost(shared: Service, spending: dict[str, str]) -> None:
    keys = "day,resource_type,model_used,provider,campaign_id,agent_job_id,agent_type"

    answer = await spend(shared, spending, group_by=keys)

    assert sorted(item["cost"] for item in answer["items"]) == ["0.5", "1.25", "2", "4", "8"]


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"from": "2025-01-02T00:00:00Z"}, "8.5"),
        ({"to": "2025-01-02T00:00:00Z"}, "7.25"),
        ({"from": "2025-01-01T00:00:00.000001Z", "to": "2025-01-01T23:59:59.999999Z"}, "4"),
        ({"from": "2025-01-02T01:00:00+01:00", "to": "2025-01-02T00:00:00.000001Z"}, "8"),
        ({"from": "2025-01-03T12:00:00Z", "to": "2025-01-03T12:00:00Z"}, None),
        ({"from": "2025-01-04T00:00:00Z", "to": "2025-01-01T00:00:00Z"}, None),
    ],
)
async def test_from_is_inclusive_and_to_exclusive(
    shared: Service, spending: dict[str, str], bounds: dict[str, str], expected: str | None
) -> None:
    answer = await spend(shared, spending, **bounds)

    assert [item["cost"] for item in answer["items"]] == ([expected] if expected else [])


async def test_the_spend_of_an_unknown_campaign_is_empty(shared: Service) -> None:
    assert await shared.get("/v1/spend", campaign_id=campaign()["id"], group_by="day") == {"items": []}


async def test_released_and_denied_holds_are_not_spend(shared: Service) -> None:
    created = campaign(budget="2")
    held = reserve("1", campaign_id=created["id"])
    await shared.append(created, held, follow(held, "cost.released"))
    await shared.post(reserve("3", campaign_id=created["id"]))

    assert (await shared.get("/v1/spend", campaign_id=created["id"]))["items"] == []
