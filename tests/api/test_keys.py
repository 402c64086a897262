"""API keys: roles, keys restricted to campaigns, expiry, revocation, rate limits."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import aiohttp
import limits
import pytest
from sqlalchemy import URL

from ledger import keys
from ledger.api.app import ROUTES, listen, serving
from ledger.api.rate_limits import RateLimits
from ledger.database import Database
from ledger.domain.access import Role
from ledger.domain.errors import InvalidEvent
from ledger.key_ring import KeyRing
from ledger.keys import CHECKSUM_CHARACTERS
from ledger.log import key_events
from ledger.log.append import LOCK_HEAD
from ledger.log.decode import read_candidate
from tests.events import campaign, content, cost, credit, event, follow, job, reserve
from tests.log.helpers import query, until, value

ALLOWED = {
    "read": {"viewer", "agent", "manager", "auditor", "admin"},
    "append": {"agent", "manager", "admin"},
    "prices": {"manager", "admin"},
    "events": {"manager", "auditor", "admin"},
    "audit": {"auditor", "admin"},
    "metrics": {"metrics", "admin"},
    "admin": {"admin"},
}


@asynccontextmanager
async def served(database: Database, rate_limits: RateLimits | None = None) -> AsyncIterator[str]:
    """Serve with authentication; yield the URL."""
    listener = listen("127.0.0.1", 0)
    async with serving(database, listener, with_worker=True, key_ring=KeyRing(database), rate_limits=rate_limits):
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


async def key_header(database: Database, name: str, role: str, **options: Any) -> dict[str, str]:
    """Create a key; return its header."""
    async with database.connection() as connection:
        _, text = await keys.create_key(connection, name, Role(role), **options)
    return {"Authorization": f"Bearer {text}"}


def key_id(header: dict[str, str]) -> str:
    """Return the id of the key in a header."""
    return header["Authorization"].split("_")[1]


async def status_of(client: aiohttp.ClientSession, method: str, path: str, **options: Any) -> int:
    async with client.request(method, path, **options) as answer:
        return answer.status


def address(path: str) -> str:
    some_id = "11111111-1111-4111-8111-111111111111"
    return path.format(id=some_id, stream_id=some_id, position=1, category="job", tile="0/000", key_id="nobody")


async def test_each_role_may_use_exactly_the_routes_of_the_table_of_roles(database: Database) -> None:
    headers = {role.value: await key_header(database, role.value, role.value) for role in Role}
    wrong = []
    async with served(database) as url, aiohttp.ClientSession(url) as client:
        for route in ROUTES:
            for role, header in headers.items():
                # An event stream begins, and does not end.
                status = await status_of(client, route.method, address(route.path), headers=header)
                expected = route.needs is None or role in ALLOWED[route.needs]
                if (status not in (401, 403)) != expected:
                    wrong.append((route.method, route.path, role, status))
            status = await status_of(client, route.method, address(route.path))
            if (status == 401) != (route.needs is not None):
                wrong.append((route.method, route.path, "nobody", status))

    assert wrong == []


async def test_roles_may_append_certain_categories_and_the_key_is_the_actor(database: Database) -> None:
    headers = {role.value: await key_header(database, f"the {role.value}", role.value) for role in Role}
    async with served(database) as url, aiohttp.ClientSession(url) as client:
        statuses = {
            role: [
                await status_of(client, "POST", "/v1/events", json=sent(), headers=header)
                for sent in (campaign, job, content, cost)
            ]
            for role, header in headers.items()
        }

    assert statuses == {
        "viewer": [403] * 4,
        "agent": [403, 201, 201, 201],
        "manager": [201] * 4,
        "auditor": [403] * 4,
        "metrics": [403] * 4,
        "admin": [201] * 4,
    }
    actors = await query(database, "SELECT DISTINCT actor FROM ledger.events ORDER BY actor")
    assert [actor for (actor,) in actors] == ["the admin", "the agent", "the manager"]


async def test_only_managers_and_admins_make_costs_less(database: Database) -> None:
    headers = {role: await key_header(database, role, role) for role in ("agent", "manager", "admin")}
    spent = cost("5")

    def adjusted(amount: str) -> dict[str, Any]:
        return follow(spent, "cost.adjusted", {"amount": amount, "reason": "R"})

    statuses = {}
    async with served(database) as url, aiohttp.ClientSession(url) as client:
        await status_of(client, "POST", "/v1/events", json=spent, headers=headers["agent"])
        for role, header in headers.items():
            sent = (credit(), adjusted("-1"), adjusted("0"), adjusted("1"), [cost(), credit()])
            statuses[role] = [await status_of(client, "POST", "/v1/events", json=each, headers=header) for each in sent]

    assert statuses == {"agent": [403, 403, 201, 201, 403], "manager": [201] * 5, "admin": [201] * 5}


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Basic abc", "Bearer lgr_abc", "Bearer " + "x" * 5_000, "Bearer lgr_000000000000_" + "0" * 38],
)
async def test_a_missing_or_invalid_key_is_401_with_how_to_send_one(database: Database, authorization: str) -> None:
    async with (
        served(database) as url,
        aiohttp.ClientSession(url) as client,
        client.get("/v1/campaigns", headers={"Authorization": authorization}) as answer,
    ):
        status, challenge = answer.status, answer.headers["WWW-Authenticate"]
        problem = await answer.json(content_type=None)

    assert (status, challenge, problem["type"]) == (401, "Bearer", "/problems/unauthenticated")


async def test_a_changed_secret_is_refused_although_its_checksum_is_valid(database: Database) -> None:
    header = await key_header(database, "somebody", "admin")
    text = header["Authorization"].removeprefix("Bearer ")[:-CHECKSUM_CHARACTERS]
    changed = text[:-1] + ("A" if text[-1] != "A" else "B")
    forged = changed + keys._checksum(changed)

    async with served(database) as url, aiohttp.ClientSession(url) as client:
        good = await status_of(client, "GET", "/v1/campaigns", headers=header)
        bad = await status_of(client, "GET", "/v1/campaigns", headers={"Authorization": f"Bearer {forged}"})

    assert (good, bad) == (200, 401)
    stored = await value(database, "SELECT row_to_json(api_keys)::text FROM ledger.api_keys AS api_keys")
    assert text.split("_")[2] not in stored


async def test_a_revoked_or_expired_key_is_refused(database: Database) -> None:
    admin = await key_header(database, "boss", "admin")
    soon = datetime.now(UTC) + timedelta(seconds=2)
    revoked, expiring = (
        await key_header(database, "gone", "viewer"),
        await key_header(database, "short", "viewer", expires_at=soon),
    )

    async with served(database) as url, aiohttp.ClientSession(url) as client:
        before = [await status_of(client, "GET", "/v1/campaigns", headers=header) for header in (revoked, expiring)]
        assert await status_of(client, "DELETE", f"/v1/keys/{key_id(revoked)}", headers=admin) == 200

        async def both_refused() -> bool:
            now = [await status_of(client, "GET", "/v1/campaigns", headers=header) for header in (revoked, expiring)]
            return now == [401, 401]

        async with asyncio.timeout(5):
            await until(both_refused)

    assert before == [200, 200]


async def test_keys_are_created_and_listed_over_http_and_shown_once(database: Database) -> None:
    admin = await key_header(database, "boss", "admin")
    new_key = {"name": "writer", "role": "agent", "campaign_ids": ["11111111-1111-4111-8111-111111111111"]}

    async with served(database) as url, aiohttp.ClientSession(url, headers=admin) as client:
        async with client.post("/v1/keys", json=new_key) as answer:
            status, shown = answer.status, await answer.json()
        again = await status_of(client, "POST", "/v1/keys", json=new_key)
        bad = [
            await status_of(client, "POST", "/v1/keys", json={**new_key, **change})
            for change in ({"name": ""}, {"name": "x" * 101}, {"role": "king"}, {"campaign_ids": []}, {"more": 1})
        ]
        async with client.get("/v1/keys") as answer:
            listed = await answer.json()
        unknown = await status_of(client, "DELETE", "/v1/keys/nobody")
        revoked = await status_of(client, "DELETE", f"/v1/keys/{shown['id']}")
        async with client.get("/v1/events") as answer:
            events = (await answer.json())["events"]

    assert (status, again, bad, unknown, revoked) == (201, 409, [400] * 5, 404, 200)
    named = {"key_id": shown["id"], "name": "writer"}
    assert [(event["type"], event["actor"], event["data"]) for event in events] == [
        ("ledger.key_created", "boss", named | {"role": "agent", "campaign_ids": new_key["campaign_ids"]}),
        ("ledger.key_revoked", "boss", named),
    ]
    assert shown["key"].startswith(f"lgr_{shown['id']}_")
    assert [key["name"] for key in listed["items"]] == ["boss", "writer"]
    assert "key" not in listed["items"][1]


async def test_keys_that_cannot_be_written_now_are_503_with_retry_after(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_events, "APPEND_TIMEOUTS", "SET LOCAL lock_timeout = '50ms'")
    admin = await key_header(database, "boss", "admin")
    requests = [
        ("POST", "/v1/keys", {"json": {"name": "writer", "role": "agent"}}),
        ("DELETE", f"/v1/keys/{key_id(admin)}", {}),
    ]

    async with served(database) as url, aiohttp.ClientSession(url, headers=admin) as client:
        async with database.connection() as connection, connection.transaction():
            await connection.execute(LOCK_HEAD)
            for method, path, options in requests:
                async with client.request(method, path, **options) as answer:
                    problem = await answer.json()
                    found = answer.status, problem["type"], answer.headers.get("Retry-After")
                assert found == (503, "/problems/database-unavailable", "1")
        listed = await (await client.get("/v1/keys")).json()

    assert [(key["name"], key["revoked_at"]) for key in listed["items"]] == [("boss", None)]


class World:
    """Two campaigns with a job, an asset and a cost each, and some without a campaign."""

    def __init__(self) -> None:
        self.mine, self.other = campaign("100"), campaign("100")
        self.events: list[dict[str, Any]] = [self.mine, self.other]
        self.parts: dict[str, list[dict[str, Any]]] = {}
        for name, owner in (("mine", self.mine), ("other", self.other), ("none", None)):
            of = {"campaign_id": owner["id"]} if owner else {}
            parts = [job(**of), content(**of), cost("2", **of)]
            self.parts[name] = parts
            self.events += parts


@pytest.fixture
async def world(database: Database, database_url: URL) -> AsyncIterator[tuple[World, aiohttp.ClientSession]]:
    """Serve the world; yield it with the client of a manager key restricted to one of its campaigns."""
    world = World()
    admin = await key_header(database, "boss", "admin")
    restricted = await key_header(database, "restricted", "manager", campaign_ids=[UUID(world.mine["id"])])
    async with served(database) as url:
        async with aiohttp.ClientSession(url, headers=admin) as client:
            assert await status_of(client, "POST", "/v1/events", json=world.events) == 201
            assert await status_of(client, "GET", "/v1/spend?min_position=11") == 200
        async with aiohttp.ClientSession(url, headers=restricted) as client:
            yield world, client


async def test_a_restricted_key_sees_only_what_is_attributed_to_its_campaigns(
    world: tuple[World, aiohttp.ClientSession],
) -> None:
    objects, client = world
    mine = {objects.mine["id"], *(part["id"] for part in objects.parts["mine"])}
    collections = ("campaigns", "agent-jobs", "content-assets", "budget-entries")

    visible: set[str] = set()
    for collection in collections:
        async with client.get(f"/v1/{collection}") as answer:
            visible |= {item["id"] for item in (await answer.json())["items"]}
    async with client.get("/v1/events") as answer:
        events = (await answer.json())["events"]
    async with client.get("/v1/spend") as answer:
        spent = (await answer.json())["items"]
    items: dict[str, list[int]] = {}
    for name, owner in (("mine", objects.mine), ("other", objects.other)):
        queued, asset, spending = objects.parts[name]
        paths = [
            f"/v1/campaigns/{owner['id']}",
            f"/v1/campaigns/{owner['id']}?as_of=11",
            f"/v1/campaigns/{owner['id']}/budget",
            f"/v1/campaigns/{owner['id']}/timeline",
            f"/v1/agent-jobs/{queued['id']}",
            f"/v1/agent-jobs/{queued['id']}?as_of=11",
            f"/v1/content-assets/{asset['id']}",
            f"/v1/budget-entries/{spending['id']}",
            f"/v1/streams/job/{queued['id']}",
            f"/v1/streams/cost/{spending['id']}",
            f"/v1/events/{1 if name == 'mine' else 2}",
        ]
        items[name] = [await status_of(client, "GET", path) for path in paths]
    closed = [await status_of(client, "GET", path) for path in ("/v1/log/checkpoint", "/v1/keys", "/metrics")]

    assert visible == mine
    assert {event["stream_id"] for event in events} == mine
    assert [item["cost"] for item in spent] == ["2"]
    assert set(items["mine"]) == {200}
    assert set(items["other"]) == {404}
    assert closed == [403] * 3


async def test_a_restricted_key_writes_only_to_its_campaigns_and_learns_nothing_of_others(
    world: tuple[World, aiohttp.ClientSession],
) -> None:
    objects, client = world
    mine, other, nowhere = objects.parts["mine"][0], objects.parts["other"][0], job()
    asset = objects.parts["mine"][1]
    own = {"campaign_id": objects.mine["id"]}
    foreign = {"campaign_id": objects.other["id"]}
    unknown = {"campaign_id": nowhere["id"]}
    allowed = [job(**own), cost(**own), reserve(**own), content(**own), cost(agent_job_id=mine["id"])]
    allowed += [follow(mine, "job.started"), follow(objects.mine, "campaign.activated"), objects.parts["mine"][2]]
    refused = {
        403: [
            campaign(),
            job(),
            cost(),
            content(),
            job(**foreign),
            cost(**foreign),
            cost(**unknown),
            objects.parts["other"][2],
        ]
        + [follow(asset, "content.assigned", data) for data in (foreign, {"campaign_id": None})],
        404: [
            follow(other, "job.started"),
            follow(nowhere, "job.started"),
            follow(objects.other, "campaign.activated"),
            follow(objects.parts["other"][2], "cost.adjusted", {"amount": "-1", "reason": "Mine"}),
        ],
        422: [cost(agent_job_id=other["id"]), cost(agent_job_id=nowhere["id"])],
    }

    took = [await status_of(client, "POST", "/v1/events", json=sent) for sent in allowed]
    answers = {
        status: [await status_of(client, "POST", "/v1/events", json=sent) for sent in events]
        for status, events in refused.items()
    }

    assert took == [201] * 7 + [200]
    assert answers == {status: [status] * len(events) for status, events in refused.items()}


async def test_a_key_over_its_rate_limit_gets_429_with_retry_after(database: Database) -> None:
    first, second = await key_header(database, "first", "viewer"), await key_header(database, "second", "viewer")
    async with (
        served(database, RateLimits(limits.parse("3/minute"))) as url,
        aiohttp.ClientSession(url) as client,
    ):
        answers = []
        for _ in range(4):
            async with client.get("/v1/campaigns", headers=first) as answer:
                answers.append((answer.status, dict(answer.headers)))
        other = await status_of(client, "GET", "/v1/campaigns", headers=second)

    assert [status for status, _ in answers] == [200, 200, 200, 429]
    assert answers[0][1]["RateLimit-Policy"] == '"key";q=3;w=60'
    assert answers[0][1]["RateLimit"].startswith('"key";r=2;t=')
    assert 1 <= int(answers[3][1]["Retry-After"]) <= 60
    assert other == 200


async def test_an_event_stream_ends_when_its_key_is_revoked(database: Database) -> None:
    admin, subscriber = await key_header(database, "boss", "admin"), await key_header(database, "ear", "auditor")
    async with (
        served(database) as url,
        aiohttp.ClientSession(url) as client,
        client.get("/v1/events/stream", headers=subscriber) as answer,
    ):
        await answer.content.readline()
        assert await status_of(client, "DELETE", f"/v1/keys/{key_id(subscriber)}", headers=admin) == 200
        async with asyncio.timeout(6):
            rest = await answer.content.read()

    events = [line for line in rest.splitlines() if line.startswith(b"event:")]
    assert set(events) <= {b"event: ledger.key_revoked"}


def test_clients_cannot_set_the_actor() -> None:
    sent = event("job.queued", {"agent_type": "analyst", "input_data": {}}, actor="somebody else")

    with pytest.raises(InvalidEvent, match="unknown field `actor`"):
        read_candidate(json.dumps(sent).encode(), 0, "me", None)
