"""Events with invalid fields: 422, each error with its path, nothing written."""

import json
from typing import Any

import pytest
from sqlalchemy import text

from tests.api.helpers import send, slug
from tests.conftest import Service
from tests.events import campaign, content, cost, event, follow, job, reserve

DAY = "2025-01-01"


async def errors_of(service: Service, body: Any) -> list[dict[str, Any]]:
    """Post an invalid event; return the errors. Nothing is written, and the next event is accepted."""
    head = await service.head()
    status, problem = await send(service, body if isinstance(body, str) else json.dumps(body))
    assert (status, slug(problem)) == (422, "invalid-event"), problem
    assert await service.head() == head
    assert (await service.append(cost()))[0]["position"] == head + 1
    errors: list[dict[str, Any]] = problem["errors"]
    assert all(error["message"] for error in errors)
    assert errors[0]["path"] in problem["detail"]
    return errors


@pytest.mark.parametrize(
    ("sent", "path"),
    [
        ({**cost(), "kost": 1}, "$.kost"),
        ({**cost(), "position": 1}, "$.position"),
        ({**cost(), "actor": "somebody"}, "$.actor"),
        (cost(kost=1), "$.data.kost"),
        (cost(over_budget=[]), "$.data.over_budget"),
        (follow(job(), "job.started", {"when": "now"}), "$.data.when"),
        (cost(**{"a b": 1}), "$.data.a b"),
    ],
)
async def test_an_unknown_field_is_named(shared: Service, sent: dict[str, Any], path: str) -> None:
    assert [error["path"] for error in await errors_of(shared, sent)] == [path]


@pytest.mark.parametrize(
    ("sent", "path"),
    [
        ({"id": cost()["id"], "data": {}}, "$.type"),
        ({"type": 5}, "$.type"),
        ({"type": "cost.recorded"}, "$.data"),
        (event("cost.recorded", {"resource_type": "other"}), "$.data.cost"),
        (event("campaign.created", {"name": "A", "budget": "1"}), "$.data.start_date"),
        ({**cost(), "data": []}, "$.data"),
        ({**cost(), "id": "1"}, "$.id"),
        ({**cost(), "stream_id": 5}, "$.stream_id"),
        ({**cost(), "correlation_id": "{}"}, "$.correlation_id"),
        ({**cost(), "expected_version": -1}, "$.expected_version"),
        ({**cost(), "expected_version": 1.5}, "$.expected_version"),
        ({**cost(), "expected_version": "1"}, "$.expected_version"),
        ({**cost(), "expected_version": 2**70}, "$.expected_version"),
        (event("job.started"), "$.stream_id"),
        (event("cost.settled", {"cost": "1"}), "$.stream_id"),
        (event("campaign.deleted", stream_id=None), "$.stream_id"),
        (cost(campaign_id="none"), "$.data.campaign_id"),
        (cost(resource_type="Beer"), "$.data.resource_type"),
        (cost(currency="usd"), "$.data.currency"),
        (cost(currency="XYZ"), "$.data.currency"),
        (cost(tokens_used=-1), "$.data.tokens_used"),
        (cost(tokens_used=10**12 + 1), "$.data.tokens_used"),
        (cost(tokens_used=1.5), "$.data.tokens_used"),
        (cost(model_used="m" * 256), "$.data.model_used"),
        (cost(description="d" * 501), "$.data.description"),
        (reserve("0"), "$.data.amount"),
        (reserve("-1"), "$.data.amount"),
        (reserve(expires_in=0), "$.data.expires_in"),
        (reserve(expires_in=604_801), "$.data.expires_in"),
        (reserve(expires_in="900"), "$.data.expires_in"),
        (campaign(name=""), "$.data.name"),
        (campaign(name="n" * 256), "$.data.name"),
        (campaign(start_date=DAY, end_date="2024-12-31"), "$.data.end_date"),
        (content(title="t" * 501), "$.data.title"),
        (content(content="c" * 1_000_001), "$.data.content"),
        (content(metadata=[]), "$.data.metadata"),
        (content(content_type="a poem"), "$.data.content_type"),
        (job(input_data=[]), "$.data.input_data"),
        (job(input_data="text"), "$.data.input_data"),
        (job(max_retries=1001), "$.data.max_retries"),
        (job(campaign()["id"], currency="EUR"), "$.data.currency"),
        (follow(job(), "job.failed", {"error_message": ""}), "$.data.error_message"),
        (follow(job(), "job.failed", {"error_message": "e" * 100_001}), "$.data.error_message"),
        (follow(job(), "job.progressed", {"progress": 1.01}), "$.data.progress"),
        (follow(job(), "job.cancelled", {"reason": "r" * 501}), "$.data.reason"),
        (follow(content(), "content.assigned"), "$.data.campaign_id"),
    ],
)
async def test_a_value_that_violates_its_field_is_named(shared: Service, sent: dict[str, Any], path: str) -> None:
    assert [error["path"] for error in await errors_of(shared, sent)] == [path]


BAD_AMOUNTS = [
    "10000000000",  # eleven digits
    "1e10",
    "1e400",
    "1e999999999",
    "1e99999999999999999999",
    "-1",
    "-0.000000000000000001",
    "9" * 900,
]


@pytest.mark.parametrize("amount", [*BAD_AMOUNTS, *(f'"{amount}"' for amount in BAD_AMOUNTS)])
@pytest.mark.parametrize(("type_", "field"), [("cost.recorded", "cost"), ("cost.reserved", "amount")])
async def test_an_amount_out_of_range_is_invalid_as_number_and_as_string(
    shared: Service, amount: str, type_: str, field: str
) -> None:
    body = f'{{"type": "{type_}", "data": {{"resource_type": "other", "{field}": {amount}}}}}'

    assert [error["path"] for error in await errors_of(shared, body)] == [f"$.data.{field}"]


@pytest.mark.parametrize(
    "amount",
    [
        '"NaN"',
        '"sNaN"',
        '"Infinity"',
        '"-Infinity"',
        '"inf"',
        "true",
        "null",
        "[1]",
        '{"a": 1}',
        '""',
        '"1,5"',
        '"$1"',
        '"0x1"',
        '"1 2"',
        '"1e"',
        '"one"',
    ],
)
async def test_a_value_that_is_not_an_amount_is_invalid(shared: Service, amount: str) -> None:
    body = f'{{"type": "cost.recorded", "data": {{"resource_type": "other", "cost": {amount}}}}}'

    assert [error["path"] for error in await errors_of(shared, body)] == ["$.data.cost"]


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("0.0000000001", "0.0000000001"),
        ("9999999999.9999999999", "9999999999.9999999999"),
        ('"9999999999.9999999999"', "9999999999.9999999999"),
        ("1.50", "1.5"),
        ("2.5e3", "2500"),
        ('"1E2"', "100"),
        ("-0", "0"),
        ("0e999", "0"),
        ("0." + "0" * 900, "0"),
        ("1." + "0" * 900, "1"),
    ],
)
async def test_an_amount_is_exact_and_returned_in_plain_notation(shared: Service, sent: str, shown: str) -> None:
    body = f'{{"type": "cost.recorded", "data": {{"resource_type": "other", "cost": {sent}}}}}'

    status, answer = await send(shared, body)

    assert status == 201
    receipt = answer["events"][0]
    assert (await shared.get(f"/v1/events/{receipt['position']}"))["data"]["cost"] == shown
    assert (await shared.get(f"/v1/budget-entries/{receipt['id']}"))["cost"] == shown


BAD_TIMES: list[Any] = [
    "2025-01-01T00:00:00",  # no zone
    "2025-01-01",
    "0001-01-01T00:00:00+00:01",  # before the calendar begins, once in UTC
    "9999-12-31T23:59:59-00:01",
    "0000-01-01T00:00:00Z",
    "10000-01-01T00:00:00Z",
    "2025-02-29T00:00:00Z",
    "2025-01-01T24:00:00Z",
    "2025-01-01T00:00:60Z",
    "2025-01-01T00:00:00+24:00",
    "now",
    "",
    1735689600,
]


@pytest.mark.parametrize("when", BAD_TIMES)
async def test_a_value_that_is_not_a_time_with_a_zone_is_invalid(shared: Service, when: Any) -> None:
    assert [error["path"] for error in await errors_of(shared, {**cost(), "occurred_at": when})] == ["$.occurred_at"]


@pytest.mark.parametrize("when", [when for when in BAD_TIMES if when != "2025-01-01"])
async def test_a_value_that_is_neither_a_time_nor_a_date_is_invalid(shared: Service, when: Any) -> None:
    errors = await errors_of(shared, campaign(start_date=when))

    assert [error["path"] for error in errors] == ["$.data.start_date"]


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("0001-01-01T00:00:00.000001Z", "0001-01-01T00:00:00.000001Z"),
        ("9999-12-31T23:59:59.999998Z", "9999-12-31T23:59:59.999998Z"),
        ("2025-06-30T23:59:59.5+05:30", "2025-06-30T18:29:59.500000Z"),
        ("2025-01-01t00:00:00z", "2025-01-01T00:00:00.000000Z"),
    ],
)
async def test_any_time_in_the_calendar_is_stored_in_utc(shared: Service, sent: str, shown: str) -> None:
    recorded = {**cost(), "occurred_at": sent}

    (receipt,) = await shared.append(recorded)
    (again,) = await shared.append(recorded)

    assert again["duplicate"]
    assert (await shared.get(f"/v1/events/{receipt['position']}"))["occurred_at"] == shown
    assert (await shared.get(f"/v1/budget-entries/{recorded['id']}"))["occurred_at"] == shown


@pytest.mark.parametrize("when", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"])
async def test_the_first_and_the_last_time_of_the_calendar_are_refused(service: Service, when: str) -> None:
    # asyncpg writes these two as -infinity and infinity, which readers of the log could not decode.
    assert [error["path"] for error in await errors_of(service, {**cost(), "occurred_at": when})] == ["$.occurred_at"]
    assert [error["path"] for error in await errors_of(service, campaign(start_date=when))] == ["$.data.start_date"]


async def test_the_time_zone_of_the_server_makes_no_difference(service: Service) -> None:
    # Before the zones of 1883 New York was 4 h 56 min 2 s behind: not an offset that RFC 3339 can write.
    name = service.database_url.database
    async with service.database.engine.begin() as connection:
        await connection.execute(text(f"ALTER DATABASE {name} SET timezone TO 'America/New_York'"))
    await service.database.close()
    early, opened = (
        {**cost("2"), "occurred_at": "1800-01-01T00:00:00Z"},
        {**campaign(), "occurred_at": "0001-01-02T00:00:00Z"},
    )

    for sent in (early, opened):
        await service.append(sent)
        (again,) = await service.append(sent)
        assert again["duplicate"]
    await service.append(follow(early, "cost.adjusted", {"amount": "1", "reason": "R"}))

    assert (await service.get(f"/v1/budget-entries/{early['id']}"))["occurred_at"] == "1800-01-01T00:00:00.000000Z"
    assert rows_by_day(await service.get("/v1/spend", group_by="day")) == {"1800-01-01": "3"}


def rows_by_day(answer: dict[str, Any]) -> dict[str, str]:
    """Return the cost of each day."""
    return {item["day"]: item["cost"] for item in answer["items"]}


async def test_sums_may_exceed_the_maximum_of_one_amount(shared: Service) -> None:
    created = campaign(budget="9999999999")
    of = {"campaign_id": created["id"]}

    receipts = await shared.append(created, cost("9000000000", **of), cost("9000000000", **of))

    assert [receipt.get("over_budget") for receipt in receipts] == [None, None, ["campaign"]]
    assert (await shared.get(f"/v1/campaigns/{created['id']}"))["spend"] == "18000000000"
    budget = await shared.get(f"/v1/campaigns/{created['id']}/budget")
    assert (budget["spent"], budget["available"]) == ("18000000000", "-8000000001")
    (spend,) = (await shared.get("/v1/spend", campaign_id=created["id"]))["items"]
    assert (spend["cost"], spend["entries"]) == ("18000000000", 2)


HUGE = "\u0001" * 1_000_000


@pytest.mark.parametrize("mode", ["atomic", "independent"])
@pytest.mark.parametrize(
    "sent",
    [
        {"type": HUGE},
        {HUGE: 1, **cost()},
        {**cost(), "id": HUGE},
        event("cost.recorded", {"resource_type": HUGE, "cost": "1", "currency": HUGE}),
        event("cost.recorded", {"resource_type": "other", "cost": HUGE, HUGE: 1}),
        event("job.queued", {"agent_type": "analyst", "input_data": {HUGE: "\0"}}),
    ],
    ids=["type", "member", "id", "value", "field", "path"],
)
async def test_the_refusal_of_a_huge_event_is_short(shared: Service, sent: dict[str, Any], mode: str) -> None:
    async with shared.client.post("/v1/events", json=sent, params={"mode": mode}) as answer:
        assert answer.status == (422 if mode == "atomic" else 200)
        assert len(await answer.read()) < 50_000
