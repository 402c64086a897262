"""The OWASP API Security Top 10 (2023), one risk after the other.

API10, unsafe consumption of other APIs, has no test: the service calls no other service. It connects only to its own
database (see API7 below).
"""

import asyncio
import base64
import re
import socket
from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import aiohttp
import limits
import pytest
from sqlalchemy import URL

from ledger.api.app import ROUTES
from ledger.api.collections import COLLECTIONS
from ledger.api.rate_limits import RateLimits
from ledger.database import Database
from ledger.domain.access import Role
from tests.api.hostile import request, response_to
from tests.api.test_keys import World, address, key_header, key_id, served, status_of
from tests.events import campaign, content, cost, event, follow, job, price, reserve
from tests.log.helpers import value

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")

INSIDE = re.compile(
    r'Traceback|File "|\.py\b|asyncpg|sqlalchemy|aiohttp|SELECT |INSERT |UPDATE |WHERE |pg_|ledger\.\w+_|/site-pack'
)
"""Internals of the service, which no response may reveal."""


ITEMS_OF_ALL = {f"{collection.path}/{{id}}" for collection in COLLECTIONS if collection.model.campaign_column is None}
"""Paths of items that count for no campaign, which restricted keys may read too."""


class Two(NamedTuple):
    """A world of two campaigns, and for each role a key restricted to the first."""

    world: World
    url: str
    admin: dict[str, str]
    restricted: dict[str, dict[str, str]]


@pytest.fixture
async def two(database: Database, database_url: URL) -> AsyncIterator[Two]:
    world = World()
    admin = await key_header(database, "boss", "admin")
    mine = [UUID(world.mine["id"])]
    restricted = {
        role.value: await key_header(database, f"own {role.value}", role.value, campaign_ids=mine) for role in Role
    }
    async with served(database) as url, aiohttp.ClientSession(url, headers=admin) as client:
        # Two of each collection, so that each has a cursor.
        recorded = [*world.events, price("one"), price("two")]
        assert await status_of(client, "POST", "/v1/events", json=recorded) == 201
        assert await status_of(client, "GET", f"/v1/spend?min_position={len(recorded)}") == 200
        yield Two(world, url, admin, restricted)


def foreign_addresses(world: World) -> list[str]:
    """Return every GET path of an object, for every object of the other campaign and of none; prices belong to all."""
    nouns = {"campaigns": [world.other]}
    for position, noun in enumerate(("agent-jobs", "content-assets", "budget-entries")):
        nouns[noun] = [world.parts[whose][position] for whose in ("other", "none")]
    kinds = {"campaign": "campaigns", "job": "agent-jobs", "content": "content-assets", "cost": "budget-entries"}
    found = []
    for route in ROUTES:
        if route.method != "GET":
            continue
        if route.path in ITEMS_OF_ALL:
            continue
        if "{id}" in route.path:
            found += [route.path.format(id=sent["id"]) for sent in nouns[route.path.split("/")[2]]]
        elif "{stream_id}" in route.path:
            found += [
                route.path.format(category=kind, stream_id=sent["id"])
                for kind, noun in kinds.items()
                for sent in nouns[noun]
            ]
        elif "{position}" in route.path:
            foreign = {sent["id"] for sent_of in nouns.values() for sent in sent_of}
            found += [
                route.path.format(position=position)
                for position, sent in enumerate(world.events, 1)
                if sent["id"] in foreign
            ]
    return found


async def test_api1_broken_object_level_authorization_no_route_shows_foreign_objects(two: Two) -> None:
    addresses = foreign_addresses(two.world)
    assert len(addresses) > 20
    wrong = []
    async with aiohttp.ClientSession(two.url) as client:
        for path in addresses:
            assert await status_of(client, "GET", path, headers=two.admin) == 200
            for as_of in ("", "?as_of=11") if re.match(r"/v1/(?!events|streams)[a-z-]+/[^/]+$", path) else ("",):
                for role, header in two.restricted.items():
                    status = await status_of(client, "GET", path + as_of, headers=header)
                    hidden = (403, 404) if role in ("viewer", "agent", "metrics") else (404,)
                    if status not in hidden:
                        wrong.append((role, path + as_of, status))

    assert wrong == []


async def test_api1_broken_object_level_authorization_no_filter_or_cursor_shows_foreign_objects(
    two: Two,
) -> None:
    world = two.world
    owned = {"campaign_id": world.other["id"], "stream_id": world.other["id"]}
    owned["agent_job_id"] = world.parts["other"][0]["id"]
    leaks = []
    async with aiohttp.ClientSession(two.url) as client:
        for route in ROUTES:
            fields = route.query.__struct_fields__ if route.query and route.method == "GET" else ()
            asks = [{name: owned[name]} for name in fields if name in owned] + [{}]
            if "sort" in fields:
                # The cursor of a key that sees everything.
                async with client.get(route.path, params={"limit": "1"}, headers=two.admin) as answer:
                    asks.append({"cursor": (await answer.json())["next"]})
            if not fields or "{" in route.path or route.needs == "audit":
                continue
            for role, header in two.restricted.items():
                for parameters in asks:
                    text = await read(client, route.path, header, parameters)
                    leaks += [(role, route.path, parameters, hit) for hit in foreign_ids(world) if hit in text]

    assert leaks == []


async def read(client: aiohttp.ClientSession, path: str, header: dict[str, str], parameters: dict[str, Any]) -> str:
    """Return the whole body; of the event stream, from position 0, what is received at once."""
    is_feed = path.endswith("/stream")
    query = {**parameters, "after": "0"} if is_feed else parameters
    async with client.get(path, params=query, headers=header) as answer:
        assert answer.status in (200, 403), await answer.text()
        if not is_feed or answer.status != 200:
            return await answer.text()
        text = b""
        while True:
            try:
                text += await asyncio.wait_for(answer.content.readany(), 0.2)
            except TimeoutError:
                return text.decode()


def foreign_ids(world: World) -> list[str]:
    return [world.other["id"], *(part["id"] for whose in ("other", "none") for part in world.parts[whose])]


async def test_api1_broken_object_level_authorization_no_role_appends_to_foreign_objects(
    two: Two, database: Database
) -> None:
    world = two.world
    queued, asset, spent = world.parts["other"]
    foreign, mine = {"campaign_id": world.other["id"]}, {"campaign_id": world.mine["id"]}
    attempts = [
        follow(world.other, "campaign.budget_changed", {"budget": "9"}),
        follow(queued, "job.started"),
        follow(asset, "content.revised", {"title": "Mine now"}),
        follow(spent, "cost.adjusted", {"amount": "-1", "reason": "R"}),
        follow(world.parts["mine"][1], "content.assigned", foreign),
        follow(asset, "content.assigned", mine),
        *(opens(**foreign) for opens in (job, content, cost, reserve)),
        cost(agent_job_id=queued["id"], **mine),
        content(agent_job_id=queued["id"], **mine),
    ]
    before = await value(database, "SELECT count(*) FROM ledger.events")
    statuses = set()
    async with aiohttp.ClientSession(two.url) as client:
        for role, header in two.restricted.items():
            for sent in attempts:
                statuses.add(await status_of(client, "POST", "/v1/events", json=sent, headers=header))
            if role in ("agent", "manager", "admin"):
                together = {"params": {"mode": "independent"}, "json": attempts, "headers": header}
                async with client.post("/v1/events", **together) as answer:
                    results = (await answer.json())["results"]
                assert all("type" in result for result in results), results

    assert statuses <= {403, 404, 422}
    assert await value(database, "SELECT count(*) FROM ledger.events") == before


async def test_api2_broken_authentication_a_key_is_read_from_its_header_only(database: Database) -> None:
    header = await key_header(database, "boss", "admin")
    key = header["Authorization"].removeprefix("Bearer ")
    elsewhere: list[dict[str, Any]] = [
        {"params": {"key": key}},
        {"params": {"access_token": key}},
        {"cookies": {"Authorization": f"Bearer {key}"}},
        {"headers": {"X-API-Key": key}},
        {"headers": {"Proxy-Authorization": f"Bearer {key}"}},
        {"headers": {"Authorization": f"Basic {base64.b64encode(f'boss:{key}'.encode()).decode()}"}},
        {"headers": {"Authorization": f"Bearer {key.swapcase()}"}},
        {"headers": {"Authorization": f"Bearer {key[:-1]}"}},
        {"headers": {"Authorization": f"Bearer {key} {key}"}},
        {"headers": {"Authorization": "Bearer boss"}},
    ]

    async with served(database) as url, aiohttp.ClientSession(url) as client:
        good = await status_of(client, "GET", "/v1/keys", headers=header)
        statuses = [await status_of(client, "GET", "/v1/keys", **value) for value in elsewhere]
        both = [("Authorization", "Bearer x"), ("Authorization", f"Bearer {key}")]
        twice = await status_of(client, "GET", "/v1/keys", headers=both)
        # Nothing that is shown of a key suffices to authenticate.
        async with client.get("/v1/keys", headers=header) as answer:
            listed = await answer.text()

    assert (good, statuses, twice) == (200, [401] * len(elsewhere), 400)
    assert key.split("_")[2] not in listed


async def test_api3_broken_object_property_level_authorization_clients_cannot_set_what_the_service_decides(
    database: Database,
) -> None:
    admin = await key_header(database, "boss", "admin")
    decided_by_service = {
        "position": 1,
        "version": 9,
        "actor": "x",
        "recorded_at": "2025-01-01T00:00:00Z",
        "category": "job",
    }
    decided_by_service |= {
        "schema_version": 7,
        "campaign_id": str(uuid4()),
        "agent_job_id": str(uuid4()),
        "over_budget": False,
    }
    decided = {"spend": "1", "held": "1", "status": "completed", "roi": "1", "cost": "1", "retry_count": 1}
    key = {"name": "new", "role": "viewer"}
    for_keys = {"id": "x" * 12, "created_at": None, "revoked_at": None, "last_used_at": None, "secret_sha256": "00"}

    async with served(database) as url, aiohttp.ClientSession(url, headers=admin) as client:
        envelopes = [
            await status_of(client, "POST", "/v1/events", json=job() | {name: value})
            for name, value in decided_by_service.items()
        ]
        payloads = [
            await status_of(client, "POST", "/v1/events", json=job(**{name: value})) for name, value in decided.items()
        ]
        written = [
            await status_of(client, "POST", "/v1/events", json=event(name, {}, stream_id=str(uuid4())))
            for name in ("cost.expired", "cost.denied", "ledger.payload_erased", "ledger.projection_skipped")
        ]
        keys = [
            await status_of(client, "POST", "/v1/keys", json={**key, name: value}) for name, value in for_keys.items()
        ]

    assert {*envelopes, *payloads, *written} == {422}
    assert set(keys) == {400}
    assert await value(database, "SELECT count(*) FROM ledger.events") == 0


async def test_api4_unrestricted_resource_consumption_every_request_is_bounded(database: Database) -> None:
    """Bodies, slow clients and connections: test_bad_input.py and test_hostile_clients.py."""
    admin = await key_header(database, "boss", "admin")
    too_much = [
        *(f"{route.path}?limit={10**9}" for route in ROUTES if route.query and has(route.query, "limit")),
        "/v1/events?limit=5001",
        "/v1/campaigns?limit=501",
        "/v1/campaigns?limit=0",
        "/v1/campaigns?limit=-1",
    ]

    async with (
        served(database, RateLimits(limits.parse("60/minute"))) as url,
        aiohttp.ClientSession(url, headers=admin) as client,
    ):
        many = await status_of(client, "POST", "/v1/events", json=[cost() for _ in range(5_001)])
        refused = [await status_of(client, "GET", address(path)) for path in too_much]
        # The rate limit counts every response to a key, refusals included.
        rest = [await status_of(client, "GET", "/v1/campaigns?limit=0") for _ in range(60)]

    assert many == 413
    assert refused == [400] * len(refused)
    assert rest.index(429) == 60 - 1 - len(refused)


def has(query: Any, name: str) -> bool:
    return name in query.__struct_fields__


async def test_api5_broken_function_level_authorization_no_method_or_spelling_bypasses_the_roles(
    database: Database,
) -> None:
    """Each role on each route: test_keys.py."""
    viewer = await key_header(database, "low", "viewer")
    victim = key_id(await key_header(database, "victim", "viewer"))
    tricks: list[tuple[str, str, dict[str, str]]] = [
        (method, path, {})
        for method in METHODS
        for path in ("/v1/keys", f"/v1/keys/{victim}", "/metrics", "/v1/events", "/v1/log/checkpoint")
        if method != "CONNECT"
    ]
    spellings = ("/V1/keys", "//v1/keys", "/v1//keys", "/v1/keys/", "/v1/./keys", "/v1/x/../keys", "/%76%31/keys")
    tricks += [("GET", path, {}) for path in spellings]
    instead = {"X-HTTP-Method-Override": "DELETE", "X-Original-URL": "/healthz", "X-Forwarded-For": "127.0.0.1"}
    tricks += [("GET", "/v1/keys", {name: value}) for name, value in instead.items()]

    async with served(database) as url:
        lines = [f"{name}: {value}" for name, value in viewer.items()]
        statuses = []
        for method, path, more in tricks:
            extra = [f"{name}: {value}" for name, value in more.items()]
            answer = await response_to(url, request(method, path, "Connection: close", *lines, *extra))
            statuses.append((method, path, answer.status))

    assert [found for found in statuses if found[2] not in (403, 404, 405)] == []
    assert await value(database, "SELECT count(*) FROM ledger.api_keys WHERE revoked_at IS NOT NULL") == 0


async def test_api6_unrestricted_access_to_sensitive_business_flows_money_cannot_be_held_twice(
    database: Database,
) -> None:
    agent, admin = await key_header(database, "agent", "agent"), await key_header(database, "boss", "admin")
    opened = campaign("10")

    async with served(database) as url, aiohttp.ClientSession(url) as client:
        assert await status_of(client, "POST", "/v1/events", json=opened, headers=admin) == 201
        asking = (
            status_of(client, "POST", "/v1/events", json=reserve("1", campaign_id=opened["id"]), headers=agent)
            for _ in range(50)
        )
        statuses = await asyncio.gather(*asking)
        raised = await status_of(
            client,
            "POST",
            "/v1/events",
            json=follow(opened, "campaign.budget_changed", {"budget": "99"}),
            headers=agent,
        )

    assert (sorted(statuses), raised) == ([201] * 10 + [402] * 40, 403)


async def test_api7_server_side_request_forgery_no_url_of_a_client_is_ever_requested(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = await key_header(database, "boss", "admin")
    with socket.socket() as trap:
        trap.bind(("127.0.0.1", 0))
        trap.listen()
        trap.setblocking(False)
        bait = f"http://127.0.0.1:{trap.getsockname()[1]}/bait"
        headers = dict.fromkeys(("Referer", "Origin", "X-Forwarded-Host", "Callback", "Link", "Location"), bait)
        async with served(database) as url, aiohttp.ClientSession(url, headers=admin) as client:
            sent = [
                campaign(name=bait, description=bait),
                content(content=f"<img src='{bait}'>", metadata={"url": bait, "$ref": bait}),
                job(input_data={"url": bait, "webhook": bait, "xml": f'<!ENTITY x SYSTEM "{bait}">'}),
            ]
            statuses = [await status_of(client, "POST", "/v1/events", json=one, headers=headers) for one in sent]
            for route in ROUTES:
                if route.method == "GET" and not route.path.endswith("stream"):
                    await status_of(client, "GET", address(route.path), params={"url": bait}, headers=headers)
                    await status_of(client, "GET", route.path.split("{")[0] + bait.replace("/", "%2F"), headers=headers)
        with pytest.raises(BlockingIOError):
            trap.accept()

    assert statuses == [201] * 3
    fields = {name for route in ROUTES if route.query for name in route.query.__struct_fields__}
    assert [name for name in fields if re.search("url|uri|host|callback|hook", name)] == []
