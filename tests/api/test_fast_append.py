"""The fast path of POST /v1/events: the same responses, headers included, as through aiohttp."""

import json
import re
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import limits
import pytest
from sqlalchemy import URL

from ledger import key_ring, keys
from ledger.api import plain_request
from ledger.api.fast_append import FastAppend
from ledger.api.fast_path import Connection
from ledger.api.rate_limits import RateLimits
from ledger.database import Database
from tests.api.helpers import without
from tests.api.hostile import Answer, request, response_to
from tests.api.test_keys import key_header, served
from tests.conftest import administer
from tests.events import campaign, content, cost, credit, event, follow, job, reserve
from tests.log.helpers import query

JSON = "Content-Type: application/json"
BYTES_MAX = 16_384
"""Smaller than the real limit, so that a request of this size arrives in one segment."""

GENERATED = re.compile(r"X-Request-ID: [0-9a-f]{32}")
OPENED = campaign("10")
OTHER = campaign("10")
RECORDED = cost("1", campaign_id=OPENED["id"])
HELD = reserve("2", campaign_id=OPENED["id"])


def post(*events: Any, key: str = "manager", headers: tuple[str, ...] = (JSON,), target: str = "/v1/events") -> bytes:
    """Encode a request with one event, or with a batch; `key` is replaced by the header of that key."""
    body = json.dumps(events[0] if len(events) == 1 else events).encode()
    return raw(body, key=key, headers=headers, target=target)


def raw(body: bytes, *, key: str = "manager", headers: tuple[str, ...] = (JSON,), target: str = "/v1/events") -> bytes:
    """Encode a request with this body."""
    return request("POST", target, f"Authorization: <{key}>", *headers, f"Content-Length: {len(body)}", body=body)


def of_size(size: int) -> bytes:
    """Encode a request that has this size with the header of a key: its body ends with spaces."""
    body = json.dumps(cost()).encode()
    spaces = size - len(raw(body.ljust(10_000), key="k" * 60)) + 10_000 - len(body)
    return raw(body + b" " * spaces)


class Case(NamedTuple):
    """A request, the status of its response, and whether it takes the fast path."""

    sent: bytes
    status: int
    is_fast: bool = True


CASES = {
    "accepted": Case(post(OPENED), 201),
    "another campaign": Case(post(OTHER), 201),
    "duplicate": Case(post(OPENED), 200),
    "other role": Case(post(RECORDED, key="agent"), 201),
    "over budget": Case(post(reserve("99", campaign_id=OPENED["id"])), 402),
    "over budget in a batch": Case(post(cost(), reserve("99", campaign_id=OPENED["id"])), 402),
    "hold with limits": Case(post(HELD), 201),
    "hold with limits again": Case(post(HELD), 200),
    "extended hold": Case(post(follow(HELD, "cost.extended", {"expires_in": 60})), 201),
    "credit": Case(post(credit(campaign_id=OPENED["id"])), 201),
    "version conflict": Case(post(follow(OPENED, "campaign.activated", expected_version=7)), 409),
    "id conflict": Case(post(RECORDED | {"data": RECORDED["data"] | {"cost": "2"}}), 409),
    "illegal transition": Case(post(follow(OPENED, "campaign.completed"), key="manager"), 409),
    "no such stream": Case(post(event("job.started", stream_id=str(uuid.uuid4()))), 409),
    "no such stream, restricted key": Case(
        post(event("job.started", stream_id=str(uuid.uuid4())), key="restricted"), 404
    ),
    "unknown reference": Case(post(cost(campaign_id=str(uuid.uuid4()))), 422),
    "batch": Case(post(job(), content(), cost()), 201),
    "batch of one": Case(raw(json.dumps([cost()]).encode()), 201),
    "lower-case scheme": Case(post(cost(), key="lower case"), 201),
    "text": Case(post(content(title="Grüße \N{SNOWMAN}")), 201),
    "over budget, recorded": Case(post(cost("99", campaign_id=OPENED["id"])), 201),
    "restricted key": Case(post(cost(campaign_id=OPENED["id"]), key="restricted"), 201),
    "restricted key, other campaign": Case(post(cost(campaign_id=OTHER["id"]), key="restricted"), 403),
    "idempotency key": Case(post(without(cost(), "id"), headers=(JSON, "Idempotency-Key: a key")), 201),
    "request id": Case(post(cost(), headers=(JSON, "X-Request-ID: my.request-1_A")), 201),
    "request id of a refusal": Case(post(reserve("99", campaign_id=OPENED["id"]), headers=("X-Request-ID: a",)), 402),
    "forged request id": Case(post(cost(), headers=("X-Request-ID: a b",)), 201),
    "long request id": Case(post(cost(), headers=("X-Request-ID: " + "a" * 65,)), 201),
    "no content type": Case(post(cost(), headers=()), 201),
    "usual headers": Case(post(cost(), headers=(JSON, "Accept: */*", "User-Agent: curl/8", "traceparent: 00-1")), 201),
    "keep-alive": Case(post(cost(), headers=(JSON, "Connection: keep-alive", "Keep-Alive: timeout=5")), 201),
    "tabs around a value": Case(post(cost(), headers=("X-Request-ID: \t a",)), 201),
    "limit of bytes - 1": Case(of_size(BYTES_MAX - 1), 201),
    "limit of bytes": Case(of_size(BYTES_MAX), 201),
    # aiohttp handles what follows.
    "limit of bytes + 1": Case(of_size(BYTES_MAX + 1), 201, is_fast=False),
    "independent": Case(post(cost(), cost("-1"), target="/v1/events?mode=independent"), 200, is_fast=False),
    "mode": Case(post(cost(), target="/v1/events?mode=atomic"), 201, is_fast=False),
    "absolute form": Case(post(cost(), target="http://ledger/v1/events"), 201, is_fast=False),
    "other path": Case(post(cost(), target="/v1/event"), 404, is_fast=False),
    "invalid event": Case(post(cost("-1")), 422, is_fast=False),
    "invalid event in a batch": Case(post(cost(), cost("-1"), cost("x")), 422, is_fast=False),
    "not JSON": Case(raw(b"{"), 400, is_fast=False),
    "not UTF-8": Case(raw(b'"\xff"'), 400, is_fast=False),
    "no body": Case(raw(b""), 400, is_fast=False),
    "no event": Case(raw(b"[]"), 400, is_fast=False),
    "too many events": Case(raw(json.dumps([0] * 5_001).encode()), 413, is_fast=False),
    "bad idempotency key": Case(post(cost(), headers=("Idempotency-Key: " + "a" * 256,)), 400, is_fast=False),
    "category of another role": Case(post(campaign(), key="agent"), 403, is_fast=False),
    "credit of another role": Case(post(credit(), key="agent"), 403, is_fast=False),
    "role that may not append": Case(post(cost(), key="viewer"), 403, is_fast=False),
    "expired key": Case(post(cost(), key="expired"), 401, is_fast=False),
    "unknown key": Case(post(cost(), key="unknown"), 401, is_fast=False),
    "mistyped key": Case(post(cost(), key="mistyped"), 401, is_fast=False),
    "other scheme": Case(post(cost(), key="basic"), 401, is_fast=False),
    "no key": Case(post(cost(), key="none"), 401, is_fast=False),
    "NDJSON": Case(post(cost(), headers=("Content-Type: application/x-ndjson",)), 201, is_fast=False),
    "charset": Case(post(cost(), headers=(f"{JSON}; charset=utf-8",)), 201, is_fast=False),
    "other content type": Case(post(cost(), headers=("Content-Type: text/plain",)), 415, is_fast=False),
    "repeated header": Case(post(cost(), headers=("X-Request-ID: a", "X-Request-ID: b")), 201, is_fast=False),
    "non-ASCII header": Case(post(cost(), headers=("User-Agent: \xe9",)), 201, is_fast=False),
    "compression that is none": Case(post(cost(), headers=("Content-Encoding: gzip",)), 400, is_fast=False),
    "close": Case(post(cost(), headers=("Connection: close",)), 201, is_fast=False),
    "proxy close": Case(post(cost(), headers=("Proxy-Connection: close",)), 201, is_fast=False),
    "HTTP/1.0": Case(post(cost()).replace(b"HTTP/1.1", b"HTTP/1.0", 1), 201, is_fast=False),
    "long header": Case(post(cost(), headers=("X-Long: " + "x" * 8_200,)), 400, is_fast=False),
    "long head": Case(post(cost(), headers=tuple(f"X-{n}: " + "x" * 1_000 for n in range(9))), 201, is_fast=False),
    "many headers": Case(post(cost(), headers=tuple(f"X-{n}: x" for n in range(60))), 201, is_fast=False),
}


class Answers(NamedTuple):
    """The responses of the fast path and of aiohttp to the same request, and whether the fast path took it."""

    fast: Answer
    ordinary: Answer
    is_fast: bool


@pytest.fixture(scope="module")
async def answers(server_url: URL, template: str, working_as: Callable[[URL], URL]) -> dict[str, Answers]:
    """The responses to all cases, in order, of two services with a database each; the second without the fast path."""

    async def received(taken: list[bool]) -> list[tuple[Answer, bool]]:
        name = f"fast_{uuid.uuid4().hex[:12]}"
        await administer(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
        database = Database(working_as(server_url.set(database=name)))
        received = await send_all(database, taken)
        await database.close()
        await administer(server_url, f"DROP DATABASE {name} WITH (FORCE)")
        return received

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(key_ring, "REFRESH_SECONDS", 1e9)
        patch.setattr(plain_request, "REQUEST_BYTES_MAX", BYTES_MAX)
        fast = await received(record_taken(patch))
        patch.setattr(FastAppend, "take", lambda *_: False)
        ordinary = await received([])
    return {
        name: Answers(fast_answer, ordinary_answer, is_fast)
        for name, (fast_answer, is_fast), (ordinary_answer, _) in zip(CASES, fast, ordinary, strict=True)
    }


async def send_all(database: Database, taken: list[bool]) -> list[tuple[Answer, bool]]:
    """Serve the database, and send all cases; return the response to each, and whether the fast path took it."""
    values = await values_by_key(database)
    received = []
    async with served(database, RateLimits(limits.parse("1000000/day"))) as url:
        await response_to(url, request("GET", "/v1/campaigns", f"Authorization: {values['manager']}"))
        # The first request with an Idempotency-Key takes the ordinary way, which loads the secret.
        await response_to(url, with_values(post(cost(), headers=("Idempotency-Key: first",)), values))
        for case in CASES.values():
            taken.clear()
            received.append((await response_to(url, with_values(case.sent, values)), any(taken)))
    return received


async def values_by_key(database: Database) -> dict[str, str]:
    """Create the keys that the cases name; return the value of `Authorization` with each."""
    campaign_ids = [uuid.UUID(OPENED["id"])]
    headers = {
        "manager": await key_header(database, "manager", "manager"),
        "agent": await key_header(database, "agent", "agent"),
        "viewer": await key_header(database, "viewer", "viewer"),
        "restricted": await key_header(database, "restricted", "agent", campaign_ids=campaign_ids),
        "expired": await key_header(database, "expired", "agent"),
    }
    await query(database, "UPDATE ledger.api_keys SET expires_at = now() WHERE name = 'expired'")
    values = {name: header["Authorization"] for name, header in headers.items()}
    unknown = "lgr_" + "0" * 12 + "_" + "0" * 32
    return values | {
        "lower case": values["agent"].replace("Bearer", "bearer"),
        "unknown": f"Bearer {unknown}{keys._checksum(unknown)}",
        "mistyped": values["agent"][:-1],
        "basic": values["agent"].replace("Bearer", "Basic"),
        "none": "",
    }


def with_values(sent: bytes, values: dict[str, str]) -> bytes:
    """Replace the name of the key in a request by the value of its header."""
    return re.sub(rb"<([a-z ]+)>", lambda name: values[name[1].decode()].encode(), sent, count=1)


def record_taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return the list to which every call of `FastAppend.take` then adds its result."""
    taken: list[bool] = []
    take = FastAppend.take

    def recorded(self: FastAppend, data: bytes, connection: Connection) -> bool:
        taken.append(take(self, data, connection))
        return taken[-1]

    monkeypatch.setattr(FastAppend, "take", recorded)
    return taken


def comparable(answer: Answer) -> tuple[list[str], bytes]:
    """Return the head and the body of a response, without its date, the seconds of a window, and a generated id."""
    lines = [re.sub(r";t=[0-9]+$", "", GENERATED.sub("X-Request-ID: (generated)", line)) for line in answer.head]
    return sorted(line for line in lines if not line.startswith("Date: ")), answer.body


@pytest.mark.parametrize("name", CASES)
async def test_both_ways_give_the_same_response(answers: dict[str, Answers], name: str) -> None:
    fast, ordinary, is_fast = answers[name]

    assert comparable(fast) == comparable(ordinary)
    assert (fast.status, is_fast) == (CASES[name].status, CASES[name].is_fast)
