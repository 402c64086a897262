"""Filters of events that no index serves: actor, correlation id, time of recording."""

import asyncio
import json
import uuid
from typing import Any

import pytest

from ledger.log import read
from tests.api.helpers import NDJSON
from tests.api.sse import open_stream
from tests.conftest import Service
from tests.events import campaign, cost

WORKFLOW = str(uuid.uuid4())
CREATED = campaign()


@pytest.fixture(scope="module")
async def recorded(shared: Service) -> list[dict[str, Any]]:
    """Ten events, recorded one by one, of which the third and the ninth belong to a workflow."""
    await shared.append(CREATED)
    for number in range(2, 11):
        envelope = {"correlation_id": WORKFLOW} if number in (3, 9) else {}
        await shared.append({**cost("1", campaign_id=CREATED["id"]), **envelope})
        # Two events may be recorded in the same microsecond only if they are in one request.
        await asyncio.sleep(0.001)
    events: list[dict[str, Any]] = (await shared.get("/v1/events"))["events"]
    return events


def positions(page: dict[str, Any]) -> list[int]:
    """Return the positions of a page."""
    return [event["position"] for event in page["events"]]


async def lines(service: Service, **parameters: str) -> list[int]:
    """Return the positions of the whole range as NDJSON."""
    async with service.client.get(
        "/v1/events", params=parameters, headers={"Accept": NDJSON["Content-Type"]}
    ) as answer:
        return [json.loads(line)["position"] for line in (await answer.read()).splitlines()]


async def test_events_are_selected_by_actor_and_workflow(shared: Service, recorded: list[dict[str, Any]]) -> None:
    assert positions(await shared.get("/v1/events", correlation_id=WORKFLOW)) == [3, 9]
    assert positions(await shared.get("/v1/events", actor="local")) == list(range(1, 11))
    assert await shared.get("/v1/events", actor="nobody") == {"events": [], "next_after": None, "head": 10}
    assert await lines(shared, correlation_id=WORKFLOW) == [3, 9]


async def test_events_are_selected_by_the_time_of_recording(shared: Service, recorded: list[dict[str, Any]]) -> None:
    third, sixth = (recorded[index]["recorded_at"] for index in (2, 5))

    for path in ("/v1/events", f"/v1/campaigns/{CREATED['id']}/timeline"):
        assert positions(await shared.get(path, recorded_from=third, recorded_to=sixth)) == [3, 4, 5]
        assert positions(await shared.get(path, recorded_from=sixth, limit="2")) == [6, 7]
        assert positions(await shared.get(path, recorded_to=third, after="1")) == [2]
        assert positions(await shared.get(path, recorded_to="2000-01-01T00:00:00Z")) == []
    assert await lines(shared, recorded_from=third, recorded_to=sixth) == [3, 4, 5]


async def test_a_search_examines_a_bounded_part_and_says_where_to_continue(
    shared: Service, recorded: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "EXAMINED_MAX", 4)
    pages, after = [], 0
    while after is not None:
        page = await shared.get("/v1/events", correlation_id=WORKFLOW, after=str(after))
        pages.append((positions(page), page["next_after"]))
        after = page["next_after"]

    assert pages == [([3], 4), ([], 8), ([9], None)]
    assert await lines(shared, correlation_id=WORKFLOW) == [3, 9]
    bounded = await shared.get("/v1/events", correlation_id=WORKFLOW, until="4")
    assert (positions(bounded), bounded["next_after"]) == ([3], None)
    # With a campaign, an index leads to the events.
    indexed = await shared.get("/v1/events", correlation_id=WORKFLOW, campaign_id=CREATED["id"])
    assert (positions(indexed), indexed["next_after"]) == ([3, 9], None)


async def test_a_full_page_continues_after_its_last_event(
    shared: Service, recorded: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "EXAMINED_MAX", 4)

    page = await shared.get("/v1/events", actor="local", limit="3")

    assert (positions(page), page["next_after"]) == ([1, 2, 3], 3)


@pytest.mark.parametrize("examined", [4, 50_000])
async def test_a_stream_takes_the_same_filters(
    shared: Service, recorded: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, examined: int
) -> None:
    monkeypatch.setattr(read, "EXAMINED_MAX", examined)
    asked = {"after": "0", "correlation_id": WORKFLOW, "actor": "local"}

    async with open_stream(shared.client, **asked) as stream:
        assert await stream.positions(2) == [3, 9]
    async with open_stream(shared.client, **asked, recorded_from=recorded[3]["recorded_at"]) as stream:
        assert await stream.positions(1) == [9]
