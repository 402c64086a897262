"""Restricted keys: what others have and what does not exist get the same answer."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from ledger.api import budgets, collections, events
from ledger.database import Database
from tests.api.helpers import count_calls
from tests.api.test_keys import World, key_header, served, status_of
from tests.events import campaign, content, cost, follow, job, reserve

PATHS = [
    "/v1/campaigns/{campaign}",
    "/v1/campaigns/{campaign}?as_of=11",
    "/v1/campaigns/{campaign}/budget",
    "/v1/campaigns/{campaign}/timeline",
    "/v1/agent-jobs/{job}",
    "/v1/agent-jobs/{job}?as_of=11",
    "/v1/content-assets/{content}",
    "/v1/content-assets/{content}?as_of=11",
    "/v1/budget-entries/{cost}",
    "/v1/budget-entries/{cost}?as_of=11",
    "/v1/streams/campaign/{campaign}",
    "/v1/streams/job/{job}",
    "/v1/streams/content/{content}",
    "/v1/streams/cost/{cost}",
    "/v1/events?campaign_id={campaign}",
    "/v1/spend?campaign_id={campaign}",
    "/v1/agent-jobs?campaign_id={campaign}",
]


class Client:
    """The client of a manager's key that is restricted to one campaign of the world."""

    def __init__(self, world: World, http: aiohttp.ClientSession, admin: dict[str, str]) -> None:
        self.world, self.http, self.admin = world, http, admin

    async def read(self, path: str, ids: dict[str, str]) -> tuple[int, str]:
        """Read a path; return the status, and the body with the ids masked."""
        async with self.http.get(path.format(**ids)) as answer:
            return answer.status, masked(await answer.text(), ids.values())

    async def post(self, event: dict[str, Any]) -> tuple[int, str]:
        """Append an event; return the status, and the body with the event's stream masked."""
        async with self.http.post("/v1/events", json=event) as answer:
            return answer.status, masked(await answer.text(), [event["id"], event.get("stream_id", event["id"])])


def masked(text: str, ids: Any) -> str:
    for each in ids:
        text = text.replace(each, "ID")
    return text


@pytest.fixture
async def client(database: Database) -> AsyncIterator[Client]:
    """Serve the world."""
    world = World()
    admin = await key_header(database, "boss", "admin")
    own = [uuid.UUID(world.mine["id"])]
    restricted = await key_header(database, "restricted", "manager", campaign_ids=own)
    async with served(database) as url:
        async with aiohttp.ClientSession(url, headers=admin) as http:
            assert await status_of(http, "POST", "/v1/events", json=world.events) == 201
            assert await status_of(http, "GET", f"/v1/spend?min_position={len(world.events)}") == 200
        async with aiohttp.ClientSession(url, headers=restricted) as http:
            yield Client(world, http, admin)


def ids_of(world: World, name: str) -> dict[str, str]:
    queued, asset, spent = world.parts[name]
    owner = {"mine": world.mine, "other": world.other}[name]
    return {"campaign": owner["id"], "job": queued["id"], "content": asset["id"], "cost": spent["id"]}


async def test_what_others_have_and_what_does_not_exist_get_the_same_answer_without_being_read(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = {name: str(uuid.uuid4()) for name in ("campaign", "job", "content", "cost")}
    own = [await client.read(path, ids_of(client.world, "mine")) for path in PATHS]
    reads = [
        count_calls(monkeypatch, owner, name)
        for owner, name in (
            (collections, "row_as_of"),
            (budgets.queries, "read_budget"),
            (events, "read_all_json"),
        )
    ]

    others = [await client.read(path, ids_of(client.world, "other")) for path in PATHS]
    absent = [await client.read(path, none) for path in PATHS]

    assert {status for status, _ in own} == {200}
    assert others == absent
    assert [status for status, _ in others] == [404] * 14 + [200] * 3
    assert reads == [[], [], []]


async def test_an_opening_event_gets_the_same_answer_on_a_stream_of_others_as_on_a_new_one(client: Client) -> None:
    foreign = {"campaign_id": client.world.other["id"]}
    streams = ids_of(client.world, "other")
    queued = streams["job"]
    opening = {
        "campaign": [campaign()],
        "job": [job(), job(**foreign)],
        "content": [content(), content(**foreign), content(agent_job_id=queued)],
        "cost": [cost(), cost(**foreign), cost(agent_job_id=queued), reserve(**foreign), cost(**foreign)],
    }

    for category, sent in opening.items():
        for event in sent:
            for version in ({}, {"expected_version": 0}, {"expected_version": 7}):
                on_new = await client.post(event | version)
                on_others = await client.post(event | version | {"stream_id": streams[category]})
                assert on_others == on_new, (event, version)
                assert on_new[0] in (403, 422)


async def test_a_moved_asset_is_seen_as_of_the_positions_at_which_it_counted_for_the_campaign(client: Client) -> None:
    asset = content(campaign_id=client.world.mine["id"])
    assert (await client.post(asset))[0] == 201
    moved = follow(asset, "content.assigned", {"campaign_id": client.world.other["id"]})
    assert await status_of(client.http, "POST", "/v1/events", json=moved, headers=client.admin) == 201
    at = len(client.world.events) + 1

    before, _ = await client.read(f"/v1/content-assets/{asset['id']}?as_of={at}", {})
    after, _ = await client.read(f"/v1/content-assets/{asset['id']}?as_of={at + 1}", {})
    stream, text = await client.read(f"/v1/streams/content/{asset['id']}", {})

    assert (before, after, stream) == (200, 404, 200)
    assert "content.assigned" not in text
