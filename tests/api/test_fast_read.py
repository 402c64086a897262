"""The fast path of reading items and pages: the same responses, headers included, as through aiohttp."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import limits
import pytest

from ledger import key_ring
from ledger.api.fast_path import Connection
from ledger.api.fast_read import FastRead
from ledger.api.rate_limits import RateLimits
from ledger.database import Database
from projections import queries
from tests.api.hostile import Answer, raw_connections, request, response_to
from tests.api.test_fast_append import comparable
from tests.api.test_keys import key_header, served
from tests.events import campaign, content, cost, job

CAMPAIGN = campaign("10")
OTHER = campaign("10")
JOB = job(campaign_id=CAMPAIGN["id"])
EVENTS = [CAMPAIGN, OTHER, JOB, content(), *(cost("1", campaign_id=CAMPAIGN["id"]) for _ in range(3))]
CAMPAIGN_PATH = f"/v1/campaigns/{CAMPAIGN['id']}"

TAKEN = {
    "campaign": (CAMPAIGN_PATH, 200),
    "job": (f"/v1/agent-jobs/{JOB['id']}", 200),
    "entry": (f"/v1/budget-entries/{EVENTS[-1]['id']}", 200),
    "no such item": (f"/v1/campaigns/{uuid.uuid4()}", 404),
    "item of another collection": (f"/v1/campaigns/{JOB['id']}", 404),
    "page": ("/v1/budget-entries", 200),
    "first page": ("/v1/budget-entries?limit=2", 200),
    "filters": (
        f"/v1/budget-entries?status=settled,held&campaign_id={CAMPAIGN['id']}&occurred_after=2020-01-01T00:00:00Z",
        200,
    ),
    "empty page": ("/v1/campaigns?name=nobody", 200),
    "content": ("/v1/content-assets?limit=1", 200),
    "unknown parameter": ("/v1/campaigns?limits=1", 400),
    "bad limit": ("/v1/campaigns?limit=0", 400),
    "repeated parameter": ("/v1/campaigns?limit=1&limit=2", 400),
    "bad cursor": ("/v1/campaigns?cursor=abc", 400),
    "no parameter": ("/v1/campaigns?&", 200),
    "plus for a space": ("/v1/campaigns?name=a+b", 200),
}
LEFT = {
    "not a UUID": (f"/v1/campaigns/{CAMPAIGN['id'][:-1]}", 400),
    "upper-case UUID": (f"/v1/campaigns/{CAMPAIGN['id'].upper()}", 200),
    "point in time": (f"{CAMPAIGN_PATH}?as_of=1", 200),
    "minimum position": (f"{CAMPAIGN_PATH}?min_position=1", 200),
    "minimum position of a page": ("/v1/campaigns?limit=1&min_position=1", 200),
    "sorted": ("/v1/campaigns?sort=-spend", 200),
    "escaped parameter": ("/v1/campaigns?s%6Frt=-spend", 200),
    "other collection": ("/v1/campaign", 404),
    "budget": (f"{CAMPAIGN_PATH}/budget", 200),
    "other resource": ("/v1/events", 200),
}


def record_taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return the list to which every call of `FastRead.take` then adds its result."""
    taken: list[bool] = []
    take = FastRead.take

    def recorded(self: FastRead, data: bytes, connection: Connection) -> bool:
        taken.append(take(self, data, connection))
        return taken[-1]

    monkeypatch.setattr(FastRead, "take", recorded)
    return taken


async def by_both_ways(url: str, sent: bytes) -> tuple[Answer, Answer, bool]:
    """Send a request; return the responses of the service and of aiohttp, and whether the fast path took it."""
    with pytest.MonkeyPatch.context() as patch:
        taken = record_taken(patch)
        fast = await response_to(url, sent)
        is_fast = any(taken)
        patch.setattr(FastRead, "take", lambda *_: False)
        return fast, await response_to(url, sent), is_fast


@pytest.fixture(autouse=True)
def cached_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the keys that were loaded once be used without end: only the first request of a test loads them."""
    monkeypatch.setattr(key_ring, "REFRESH_SECONDS", 1e9)


@asynccontextmanager
async def prepared(database: Database) -> AsyncIterator[tuple[str, str]]:
    """Serve the events with rate limits; yield the URL and the header of a manager's key, which is cached."""
    header = await key_header(database, "manager", "manager")
    async with served(database, RateLimits(limits.parse("1000/day"))) as url:
        async with aiohttp.ClientSession(url, headers=header) as client:
            async with client.post("/v1/events", json=EVENTS) as answer:
                position = (await answer.json())["position"]
            async with client.get("/v1/campaigns", params={"min_position": position}) as answer:
                assert answer.status == 200
        yield url, f"Authorization: {header['Authorization']}"


def compared(answer: Answer) -> tuple[list[str], bytes]:
    """Return what is the same for a request that is repeated: all but the number of requests that are left."""
    head, body = comparable(answer)
    return [line for line in head if not line.startswith("RateLimit: ")], body


async def test_both_ways_give_the_same_response(database: Database) -> None:
    differing = {}
    async with prepared(database) as (url, key):
        for is_fast, cases in ((True, TAKEN), (False, LEFT)):
            for name, (path, status) in cases.items():
                fast, ordinary, was_fast = await by_both_ways(url, request("GET", path, key, "X-Request-ID: mine"))
                if compared(fast) != compared(ordinary) or (fast.status, was_fast) != (status, is_fast):
                    differing[name] = (fast, ordinary, was_fast)

    assert differing == {}


async def test_the_key_decides_what_is_visible(database: Database) -> None:
    restricted = await key_header(database, "restricted", "agent", campaign_ids=[uuid.UUID(OTHER["id"])])
    key = f"Authorization: {restricted['Authorization']}"
    async with prepared(database) as (url, _):
        await response_to(url, request("GET", "/v1/campaigns", key))
        for path, status in ((CAMPAIGN_PATH, 404), (f"/v1/campaigns/{OTHER['id']}", 200), ("/v1/campaigns", 200)):
            fast, ordinary, was_fast = await by_both_ways(url, request("GET", path, key, "X-Request-ID: mine"))
            assert (fast.status, was_fast, compared(fast)) == (status, True, compared(ordinary))
        assert [item["id"] for item in json.loads(fast.body)["items"]] == [OTHER["id"]]


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ("Authorization: Bearer lgr_unknown",),
        ("Authorization: <key>", "Ledger-Min-Position: 1"),
        ("Authorization: <key>", "Connection: close"),
    ],
)
async def test_unusual_requests_are_left_to_aiohttp(database: Database, headers: tuple[str, ...]) -> None:
    async with prepared(database) as (url, key):
        sent = request("GET", CAMPAIGN_PATH, *(header.replace("Authorization: <key>", key) for header in headers))
        fast, ordinary, was_fast = await by_both_ways(url, sent)

    assert (fast.status, was_fast) == (ordinary.status, False)


async def test_requests_count_against_the_rate_limit(database: Database) -> None:
    header = await key_header(database, "manager", "manager")
    key = f"Authorization: {header['Authorization']}"
    async with served(database, RateLimits(limits.parse("4/day"))) as url:
        answers = [await response_to(url, request("GET", "/v1/campaigns", key)) for _ in range(5)]

    assert [answer.status for answer in answers] == [200] * 4 + [429]
    assert [answer.headers["ratelimit"].split(";")[1] for answer in answers] == ["r=3", "r=2", "r=1", "r=0", "r=0"]


@pytest.mark.parametrize(("error", "status"), [(ConnectionRefusedError("secret"), 503), (RuntimeError("secret"), 500)])
async def test_an_error_has_the_same_response(
    database: Database, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    async def fail(*_: Any) -> Any:
        raise error

    async with prepared(database) as (url, key):
        monkeypatch.setattr(queries, "read_item", fail)
        fast, ordinary, was_fast = await by_both_ways(url, request("GET", CAMPAIGN_PATH, key, "X-Request-ID: mine"))

    assert (fast.status, was_fast) == (status, True)
    assert compared(fast) == compared(ordinary)
    assert b"secret" not in fast.body


async def test_a_read_ends_with_its_client(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    began, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(*_: Any) -> Any:
        began.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    admin = (await key_header(database, "admin", "admin"))["Authorization"]
    async with prepared(database) as (url, key):
        monkeypatch.setattr(queries, "read_item", hang)
        async with raw_connections(url) as (connection,):
            await connection.send(request("GET", CAMPAIGN_PATH, key))
            await asyncio.wait_for(began.wait(), 10)
        await asyncio.wait_for(cancelled.wait(), 10)
        metrics = await response_to(url, request("GET", "/metrics", f"Authorization: {admin}"))

    assert b'route="/v1/campaigns/{id}",status="499"' in metrics.body


async def test_requests_on_one_connection_are_answered_in_order(database: Database) -> None:
    async with prepared(database) as (url, key), raw_connections(url) as (connection,):
        paths = [CAMPAIGN_PATH, "/v1/budget-entries?limit=2", "/v1/campaigns?sort=-spend", CAMPAIGN_PATH]
        await connection.send(b"".join(request("GET", path, key) for path in paths))
        together = [(await connection.answer()).body for _ in paths]
        alone = []
        for path in paths:
            await connection.send(request("GET", path, key))
            alone.append((await connection.answer()).body)

    assert together == alone
