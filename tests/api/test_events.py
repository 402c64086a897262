"""GET /v1/events, one event, streams and timelines: filters, pages, NDJSON, canonical form."""

import json
import uuid
from typing import Any

import pytest

from ledger.api import event_search
from tests.api.helpers import NDJSON
from tests.conftest import Service
from tests.events import campaign, content, cost, follow, job, reserve

pytestmark = pytest.mark.every_connection

ACCEPT_NDJSON = {"Accept": NDJSON["Content-Type"]}


async def lines(service: Service, path: str = "/v1/events", **parameters: Any) -> list[dict[str, Any]]:
    """Read the log as NDJSON."""
    async with service.client.get(path, params=parameters, headers=ACCEPT_NDJSON) as answer:
        assert answer.status == 200
        assert answer.content_type == "application/x-ndjson"
        body = await answer.read()
    assert body == b"" or body.endswith(b"\n")
    return [json.loads(line) for line in body.splitlines()]


async def positions(service: Service, path: str = "/v1/events", **parameters: Any) -> list[int]:
    """Return the positions of the events of one page."""
    return [event["position"] for event in (await service.get(path, **parameters))["events"]]


@pytest.fixture(scope="module")
async def story(shared: Service) -> dict[str, dict[str, Any]]:
    """Append eleven events at the positions 1 to 11; return the first events of their streams by name."""
    first, second = campaign(), campaign()
    queued = job(first["id"])
    asset = content(campaign_id=second["id"])
    spent = cost("1", agent_job_id=queued["id"])
    held = reserve("1", campaign_id=second["id"])
    await shared.append(first, second, queued, follow(queued, "job.started"))  # 1 2 3 4
    await shared.append(asset, follow(asset, "content.submitted"))  # 5 6
    await shared.append(spent, held, cost("2"))  # 7 8 9
    await shared.append(follow(held, "cost.released"), follow(first, "campaign.activated"))  # 10 11
    return {"first": first, "second": second, "job": queued, "asset": asset, "spent": spent, "held": held}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        ({"after": "0"}, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        ({"after": "9"}, [10, 11]),
        ({"after": "11"}, []),
        ({"until": "2"}, [1, 2]),
        ({"until": "0"}, []),
        ({"after": "3", "until": "5"}, [4, 5]),
        ({"after": "5", "until": "3"}, []),
        ({"limit": "3"}, [1, 2, 3]),
        ({"category": "job"}, [3, 4]),
        ({"category": "campaign,content"}, [1, 2, 5, 6, 11]),
        ({"category": "ledger"}, []),
        ({"type": "cost.recorded"}, [7, 9]),
        ({"type": "cost.recorded,campaign.created"}, [1, 2, 7, 9]),
        ({"type": "no.such.type"}, []),
        ({"category": "cost", "type": "cost.recorded,job.queued"}, [7, 9]),
        ({"category": "cost", "after": "7", "limit": "2"}, [8, 9]),
    ],
)
async def test_filters_select_events_with_any_of_their_values(
    shared: Service, story: Any, filters: dict[str, str], expected: list[int]
) -> None:
    assert await positions(shared, **filters) == expected


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"campaign_id": "first"}, [1, 3, 4, 7, 11]),
        ({"campaign_id": "second"}, [2, 5, 6, 8, 10]),
        ({"agent_job_id": "job"}, [3, 4, 7]),
        ({"stream_id": "held"}, [8, 10]),
        ({"stream_id": "asset", "campaign_id": "second"}, [5, 6]),
        ({"stream_id": "asset", "campaign_id": "first"}, []),
        ({"agent_job_id": "job", "campaign_id": "first"}, [3, 4, 7]),
        ({"agent_job_id": "held"}, []),
    ],
)
async def test_filters_by_campaign_and_job_combine(
    shared: Service, story: dict[str, dict[str, Any]], filters: dict[str, str], expected: list[int]
) -> None:
    by_id = {name: story[of]["id"] for name, of in filters.items()}

    assert await positions(shared, **by_id) == expected
    assert [event["position"] for event in await lines(shared, **by_id)] == expected
    if expected:
        assert await positions(shared, **by_id, until=expected[-1] - 1) == expected[:-1]


@pytest.mark.parametrize("limit", [1, 2, 3, 10, 11, 12])
async def test_following_next_after_returns_each_event_once(shared: Service, story: Any, limit: int) -> None:
    found: list[int] = []
    after: int | None = 0
    pages = 0
    while after is not None:
        page = await shared.get("/v1/events", after=after, limit=limit)
        assert page["head"] == 11
        found += [event["position"] for event in page["events"]]
        after, pages = page["next_after"], pages + 1

    assert found == list(range(1, 12))
    assert pages == -(-11 // limit)


async def test_next_after_is_null_if_no_more_events_match(shared: Service, story: Any) -> None:
    page = await shared.get("/v1/events", category="job", limit=2)

    assert [event["position"] for event in page["events"]] == [3, 4]
    assert (page["next_after"], page["head"]) == (None, 11)


async def test_ndjson_has_the_events_of_all_pages_whatever_the_limit(shared: Service, story: Any) -> None:
    page = await shared.get("/v1/events")

    assert await lines(shared) == page["events"]
    assert await lines(shared, limit=1) == page["events"]
    assert await lines(shared, after=4, until=9) == page["events"][4:9]
    assert await lines(shared, category="ledger") == []


async def test_an_event_is_read_by_its_position(shared: Service, story: dict[str, dict[str, Any]]) -> None:
    event = await shared.get("/v1/events/5")

    assert event == (await shared.get("/v1/events", after=4, limit=1))["events"][0]
    assert event["id"] == story["asset"]["id"]
    assert (await shared.problem("/v1/events/12"))[0] == 404


async def test_a_stream_is_returned_whole_with_its_version_as_etag(
    shared: Service, story: dict[str, dict[str, Any]]
) -> None:
    path = f"/v1/streams/cost/{story['held']['id']}"

    async with shared.client.get(path) as answer:
        stream = await answer.json()
        etag = answer.headers["ETag"]

    assert answer.content_type == "application/json"
    assert etag == '"2"'
    assert stream["version"] == 2
    assert [(event["version"], event["position"]) for event in stream["events"]] == [(1, 8), (2, 10)]
    async with shared.client.get(path, headers={"If-None-Match": etag}) as answer:
        assert (answer.status, answer.headers["ETag"], await answer.read()) == (304, etag, b"")
    async with shared.client.get(path, headers={"If-None-Match": '"1"'}) as answer:
        assert answer.status == 200
        assert await answer.json() == stream


async def test_the_same_id_in_another_category_is_another_stream(service: Service) -> None:
    same_id = str(uuid.uuid4())
    await service.append({**campaign(), "id": same_id}, {**content(), "id": same_id})

    for category in ("campaign", "content"):
        stream = await service.get(f"/v1/streams/{category}/{same_id}")
        assert [event["type"] for event in stream["events"]] == [f"{category}.created"]
    assert (await service.problem(f"/v1/streams/job/{same_id}"))[0] == 404


async def test_a_timeline_has_the_events_of_a_campaign(shared: Service, story: dict[str, dict[str, Any]]) -> None:
    path = f"/v1/campaigns/{story['first']['id']}/timeline"

    assert await positions(shared, path) == [1, 3, 4, 7, 11]
    assert await positions(shared, path, category="campaign,cost", after=1) == [7, 11]
    assert await positions(shared, path, type="job.started") == [4]
    assert await positions(shared, path, agent_job_id=story["job"]["id"], until=6) == [3, 4]
    assert (await shared.get(path, limit=2))["next_after"] == 3
    assert [event["position"] for event in await lines(shared, path)] == [1, 3, 4, 7, 11]


async def test_a_deleted_campaign_keeps_its_timeline(service: Service) -> None:
    created = campaign()
    await service.append(created, follow(created, "campaign.deleted", {"reason": "A mistake"}))

    page = await service.get(f"/v1/campaigns/{created['id']}/timeline")

    assert [event["type"] for event in page["events"]] == ["campaign.created", "campaign.deleted"]


async def test_an_event_is_returned_in_its_canonical_form(service: Service) -> None:
    ids = [str(uuid.uuid4()) for _ in range(4)]
    sent = {
        "type": "campaign.created",
        "id": ids[0].upper(),
        "stream_id": ids[1].upper(),
        "correlation_id": ids[2],
        "causation_id": ids[3],
        "occurred_at": "2025-06-30T23:59:59.5+05:30",
        "data": {
            "start_date": "2025-07-01",
            "description": "Für \U0001f600 & <alle>",
            "budget": 2500.00,
            "name": 'Say "hi"\n',
            "end_date": "2025-07-31T12:00:00+02:00",
        },
    }
    await service.append(sent)

    event = await service.get("/v1/events/1")

    recorded_at = event.pop("recorded_at")
    assert len(recorded_at) == len("2025-06-30T18:29:59.500000Z")
    assert recorded_at.endswith("Z")
    assert event == {
        "position": 1,
        "category": "campaign",
        "stream_id": ids[1],
        "version": 1,
        "id": ids[0],
        "type": "campaign.created",
        "schema_version": 1,
        "occurred_at": "2025-06-30T18:29:59.500000Z",
        "actor": "local",
        "campaign_id": ids[1],
        "agent_job_id": None,
        "correlation_id": ids[2],
        "causation_id": ids[3],
        "data": {
            "budget": "2500",
            "currency": "USD",
            "start_date": "2025-07-01T00:00:00.000000Z",
            "end_date": "2025-07-31T10:00:00.000000Z",
            "name": 'Say "hi"\n',
            "description": "Für \U0001f600 & <alle>",
        },
    }


async def test_absent_fields_are_omitted_and_campaign_and_job_are_resolved(service: Service) -> None:
    created = campaign()
    queued = job(created["id"])
    spent = cost("0.000125", agent_job_id=queued["id"], tokens_used=7)
    assigned = content(metadata={"b": [1.5, True, None], "a": 12345678901234567890})
    unassigned = follow(assigned, "content.assigned", {"campaign_id": None})
    receipts = await service.append(created, queued, follow(queued, "job.started"), spent, assigned, unassigned)

    _, _, started, cost_event, content_event, last = [
        await service.get(f"/v1/events/{receipt['position']}") for receipt in receipts
    ]

    assert started["data"] == {}
    assert started["occurred_at"] == started["recorded_at"]
    assert {"correlation_id", "causation_id", "erased"}.isdisjoint(started)
    assert cost_event["data"] == {
        "resource_type": "llm_api",
        "cost": "0.000125",
        "tokens_used": 7,
        "agent_job_id": queued["id"],
    }
    assert (cost_event["campaign_id"], cost_event["agent_job_id"]) == (created["id"], queued["id"])
    assert content_event["data"]["metadata"]["a"] == 12345678901234567890
    assert last["data"] == {"campaign_id": None}


async def test_no_event_of_a_page_is_beyond_its_head(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    original = event_search.read_json_page

    async def read_page_after_an_append(*arguments: Any) -> Any:
        await service.append(cost())
        return await original(*arguments)

    monkeypatch.setattr(event_search, "read_json_page", read_page_after_an_append)

    page = await service.get("/v1/events")

    assert page["events"]
    assert page["head"] >= page["events"][-1]["position"]
