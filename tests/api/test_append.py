"""POST /v1/events: receipts, batches, duplicates, idempotency keys, expected versions, refusals."""

import asyncio
import json
import uuid
from typing import Any

import pytest

from tests.api.helpers import NDJSON, log, ndjson, send, slug, without
from tests.conftest import Service
from tests.events import campaign, content, cost, event, follow, job, reserve

UNKNOWN = "00000000-0000-4000-8000-000000000000"


async def test_an_appended_event_returns_its_receipt(service: Service) -> None:
    created = campaign()

    status, answer = await service.post(created)

    assert status == 201
    assert answer == {
        "position": 1,
        "events": [{"id": created["id"], "stream_id": created["id"], "version": 1, "position": 1, "duplicate": False}],
    }


async def test_the_read_model_reflects_an_appended_event(shared: Service) -> None:
    created = campaign(budget="1")

    await shared.append(created, cost("1.5", campaign_id=created["id"]))

    shown = await shared.get(f"/v1/campaigns/{created['id']}")
    assert shown["spend"] == "1.5"


async def test_an_array_is_appended_in_order(service: Service) -> None:
    created = campaign()
    events = [created, follow(created, "campaign.activated"), cost("1", campaign_id=created["id"])]

    status, answer = await service.post(events)

    assert status == 201
    assert answer["position"] == 3
    assert [receipt["id"] for receipt in answer["events"]] == [sent["id"] for sent in events]
    assert [(receipt["position"], receipt["version"]) for receipt in answer["events"]] == [(1, 1), (2, 2), (3, 1)]


async def test_ndjson_lines_are_appended_in_order_and_blank_lines_skipped(shared: Service) -> None:
    events = [cost(), cost(), cost()]
    first, second, third = ndjson(events).splitlines()

    status, answer = await send(shared, b"\r\n".join([first, b"", second, b"  ", third]), headers=NDJSON)

    assert status == 201
    assert [receipt["id"] for receipt in answer["events"]] == [sent["id"] for sent in events]


@pytest.mark.parametrize("media_type", ["application/json; charset=utf-8", "APPLICATION/JSON"])
async def test_json_is_accepted_under_every_declared_type(shared: Service, media_type: str) -> None:
    status, _ = await send(shared, json.dumps(cost()), headers={"Content-Type": media_type})

    assert status == 201


async def test_a_repeated_event_returns_its_first_receipt_and_is_not_written_twice(service: Service) -> None:
    created, other = campaign(), campaign()
    await service.append(created, other)

    status, answer = await service.post(created)

    assert status == 200
    assert answer["position"] == 1
    assert answer["events"] == [
        {"id": created["id"], "stream_id": created["id"], "version": 1, "position": 1, "duplicate": True}
    ]
    assert await service.head() == 2


async def test_a_batch_with_a_new_event_is_201_and_marks_duplicates(service: Service) -> None:
    known, new = cost(), cost()
    await service.append(known)

    status, answer = await service.post([new, known, new])

    assert status == 201
    assert [receipt["duplicate"] for receipt in answer["events"]] == [False, True, True]
    assert [receipt["position"] for receipt in answer["events"]] == [2, 1, 2]
    assert answer["position"] == 2


@pytest.mark.parametrize("mode", ["atomic", "independent"])
async def test_the_position_header_is_the_highest_position(service: Service, mode: str) -> None:
    events = [cost(), cost()]

    for _ in range(2):
        async with service.client.post("/v1/events", json=events, params={"mode": mode}) as answer:
            assert answer.headers["Ledger-Position"] == "2"
            assert (await answer.json())["position"] == 2


async def test_independent_events_are_accepted_or_refused_separately(service: Service) -> None:
    good, repeated = cost(), cost()
    await service.append(repeated)
    misspelt = {**cost(), "kost": 1}
    orphan = cost(campaign_id=UNKNOWN)
    last = cost()

    status, answer = await service.post([good, misspelt, repeated, orphan, last], mode="independent")

    results = answer["results"]
    assert status == 200
    assert answer["position"] == 3
    assert [result.get("position") for result in results] == [2, None, 1, None, 3]
    assert [result.get("duplicate") for result in results] == [False, None, True, None, False]
    assert [result.get("index") for result in results] == [None, 1, None, 3, None]
    assert (slug(results[1]), results[1]["status"], results[1]["errors"][0]["path"]) == ("invalid-event", 422, "$.kost")
    assert (slug(results[3]), results[3]["status"]) == ("unknown-reference", 422)


async def test_an_invalid_line_does_not_stop_independent_events(service: Service) -> None:
    lines = ndjson([cost()]) + b"{broken\n" + ndjson([cost()])

    status, answer = await send(service, lines, headers=NDJSON, mode="independent")

    assert status == 200
    assert [result.get("position") for result in answer["results"]] == [1, None, 2]
    assert (slug(answer["results"][1]), answer["results"][1]["index"]) == ("malformed", 1)


async def test_independent_events_see_the_earlier_ones(shared: Service) -> None:
    created = campaign()

    _, answer = await shared.post([created, follow(created, "campaign.activated")], mode="independent")

    assert [result["version"] for result in answer["results"]] == [1, 2]


def _refused_batches() -> list[Any]:
    created, done = campaign(budget="1"), job()
    return [
        pytest.param([created, {**cost(), "kost": 1}], 422, "invalid-event", 1, id="shape"),
        pytest.param([created, {**created, "data": {**created["data"], "name": "B"}}], 409, "event-id-conflict", 1),
        pytest.param([created, follow(created, "campaign.activated", expected_version=3)], 409, "version-conflict", 1),
        pytest.param([created, follow(created, "campaign.paused")], 409, "illegal-transition", 1),
        pytest.param([created, cost(campaign_id=UNKNOWN), cost()], 422, "unknown-reference", 1),
        pytest.param([created, cost(currency="EUR", campaign_id=created["id"])], 422, "currency-mismatch", 1),
        pytest.param([created, done, reserve("1.1", campaign_id=created["id"])], 402, "budget-exceeded", 2),
    ]


@pytest.mark.parametrize(("events", "status", "name", "index"), _refused_batches())
async def test_a_refused_batch_writes_nothing_and_names_the_refused_event(
    shared: Service, events: list[dict[str, Any]], status: int, name: str, index: int
) -> None:
    head = await shared.head()

    answered, problem = await send(shared, json.dumps(events))

    assert (answered, slug(problem)) == (status, name)
    assert problem["index"] == index
    assert await shared.head() == head
    assert (await shared.problem(f"/v1/streams/campaign/{events[0]['id']}"))[0] == 404


async def test_an_invalid_line_of_a_batch_is_named_by_its_index(shared: Service) -> None:
    head = await shared.head()

    status, problem = await send(shared, ndjson([cost()]) + b"{broken\n", headers=NDJSON)

    assert (status, slug(problem), problem.get("index")) == (400, "malformed", 1)
    assert await shared.head() == head


async def test_every_invalid_event_is_named(shared: Service) -> None:
    events = [{**cost(), "kost": 1}, cost(), event("no.such"), cost(amount="NaN")]

    _, problem = await shared.post(events)

    assert [(error["index"], error["path"]) for error in problem["errors"]] == [
        (0, "$.kost"),
        (2, "$.type"),
        (3, "$.data.cost"),
    ]


async def test_the_refusal_of_a_single_event_has_no_index(shared: Service) -> None:
    _, problem = await shared.post(cost(campaign_id=UNKNOWN))

    assert slug(problem) == "unknown-reference"
    assert "index" not in problem


async def test_a_request_repeated_with_its_idempotency_key_returns_the_same_events(shared: Service) -> None:
    body = json.dumps([without(campaign(), "id"), without(content(), "id")])
    headers = {"Idempotency-Key": "order 66, größer"}

    first_status, first = await send(shared, body, headers=headers)
    second_status, second = await send(shared, body, headers=headers)

    assert (first_status, second_status) == (201, 200)
    assert [receipt["duplicate"] for receipt in second["events"]] == [True, True]
    assert [{**receipt, "duplicate": False} for receipt in second["events"]] == first["events"]
    assert {uuid.UUID(receipt["id"]).version for receipt in first["events"]} == {8}


async def test_another_idempotency_key_makes_another_event_and_explicit_ids_take_precedence(shared: Service) -> None:
    named = cost()
    anonymous = without(named, "id")

    sent = [("a", anonymous), ("b", anonymous), ("c", named), ("d", named)]
    statuses = [(await send(shared, json.dumps(body), headers={"Idempotency-Key": key}))[0] for key, body in sent]

    assert statuses == [201, 201, 201, 200]


async def test_an_idempotency_key_reused_for_another_event_is_a_conflict(shared: Service) -> None:
    headers = {"Idempotency-Key": "another"}
    await send(shared, json.dumps(without(cost("1"), "id")), headers=headers)

    status, problem = await send(shared, json.dumps(without(cost("2"), "id")), headers=headers)

    assert (status, slug(problem)) == (409, "event-id-conflict")


async def test_an_event_without_id_and_key_gets_a_new_id_that_sorts_by_time(shared: Service) -> None:
    first, second = await shared.append(without(cost(), "id"), without(cost(), "id"))

    assert {uuid.UUID(receipt["id"]).version for receipt in (first, second)} == {7}
    assert first["id"] < second["id"]
    assert first["stream_id"] == first["id"]


async def test_the_expected_version_is_the_version_before_the_event(shared: Service) -> None:
    created = {**campaign(), "expected_version": 0}

    receipts = await shared.append(
        created,
        follow(created, "campaign.activated", expected_version=1),
        follow(created, "campaign.paused", expected_version=2),
    )

    assert [receipt["version"] for receipt in receipts] == [1, 2, 3]


async def test_a_version_conflict_names_the_expected_and_the_actual_version(shared: Service) -> None:
    created = campaign()
    await shared.append(created, follow(created, "campaign.activated"))

    status, problem = await shared.post(follow(created, "campaign.paused", expected_version=1))

    assert (status, slug(problem)) == (409, "version-conflict")
    assert (problem["expected"], problem["actual"]) == (1, 2)
    stored = await log(shared, stream_id=created["id"])
    assert [event["type"] for event in stored] == ["campaign.created", "campaign.activated"]


async def test_only_one_of_many_requests_with_the_same_expected_version_succeeds(shared: Service) -> None:
    created = campaign()
    await shared.append(created)
    changes = [follow(created, "campaign.details_changed", {"name": f"{n}"}, expected_version=1) for n in range(20)]

    answers = await asyncio.gather(*(shared.post(change) for change in changes))

    assert sorted(status for status, _ in answers) == [201] + [409] * 19
    assert {slug(problem) for status, problem in answers if status == 409} == {"version-conflict"}
    assert len(await log(shared, stream_id=created["id"])) == 2
