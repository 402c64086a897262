"""HTTP itself: HEAD wherever there is a GET, expectations, versions, repeated headers, codings."""

import asyncio
import json
from typing import Any

import pytest

from ledger.api.app import ROUTES
from ledger.database import Database
from tests.api.hostile import raw_connections, request, response_to
from tests.api.test_keys import key_header, served
from tests.conftest import Service
from tests.events import campaign, cost, job

NDJSON = "application/x-ndjson"
JSON = "Content-Type: application/json"


@pytest.fixture
async def ids(shared: Service) -> dict[str, Any]:
    """The parameters of every path, for things that exist; the log is sealed as far as the routes can see."""
    opened = campaign()
    queued = job(campaign_id=opened["id"])
    await shared.append(opened, queued)
    await shared.get("/v1/campaigns", limit=1)
    return {
        "id": opened["id"],
        "stream_id": queued["id"],
        "category": "job",
        "position": 1,
        "tile": "0/000",
        "key_id": "123456789012",
    }


@pytest.mark.parametrize("coding", ["identity", "gzip"])
@pytest.mark.parametrize("path", [route.path for route in ROUTES if route.method == "GET"])
async def test_head_is_answered_like_get_without_a_body(
    shared: Service, ids: dict[str, Any], path: str, coding: str
) -> None:
    url, target = str(shared.client._base_url), path.format(**ids)

    async with asyncio.timeout(10):
        async with shared.client.get(target, headers={"Accept-Encoding": coding}) as got:
            # The body of an event stream does not end.
            status, headers = got.status, got.headers
        head = await response_to(url, request("HEAD", target, f"Accept-Encoding: {coding}", "Connection: close"))

    names = ["Content-Type", "Content-Encoding", "Vary", "ETag", "Ledger-Position"]
    if status == 200 and "metrics" not in path:
        names.append("Content-Length")
    assert head.status == status
    assert [head.headers.get(name.lower()) for name in names] == [headers.get(name) for name in names]
    assert head.body == b""


@pytest.mark.parametrize(
    ("path", "accept"),
    [("/v1/events", NDJSON), ("/v1/events/stream", "text/event-stream"), ("/v1/log/export", NDJSON)],
)
async def test_the_head_of_a_stream_ends_at_once_and_the_connection_serves_further_requests(
    shared: Service, ids: dict[str, Any], path: str, accept: str
) -> None:
    async with raw_connections(str(shared.client._base_url)) as (connection,):
        for _ in range(2):
            await connection.send(request("HEAD", path, f"Accept: {accept}"))
            head = await connection.answer(has_body=False)
            await connection.send(request("GET", "/healthz"))
            healthy = await connection.answer()
            assert (head.status, head.headers["content-type"]) == (200, accept)
            assert (healthy.status, healthy.body) == (200, b'{"status":"ok"}')


async def test_head_is_not_allowed_where_there_is_no_get(shared: Service) -> None:
    async with shared.client.head("/v1/keys/123456789012") as answer:
        assert answer.status == 405
        assert answer.headers["Allow"] == "DELETE"


@pytest.mark.parametrize("path", ["/healthz", "/v1/campaigns", "/nowhere"])
async def test_an_unknown_expectation_is_a_problem(shared: Service, path: str) -> None:
    answer = await response_to(str(shared.client._base_url), request("GET", path, "Expect: x"))

    assert (answer.status, answer.problem) == (417, "expectation-failed")
    assert answer.headers["server"] == "ledger"


@pytest.mark.parametrize("version", ["HTTP/2.0", "HTTP/0.9", "HTTP/1.2", "HTTP/3.0"])
async def test_another_version_of_http_is_malformed_and_not_echoed(shared: Service, version: str) -> None:
    sent = request("GET", "/healthz").replace(b"HTTP/1.1", version.encode())

    answer = await response_to(str(shared.client._base_url), sent)

    assert answer.head[0] in ("HTTP/1.0 400 Bad Request", "HTTP/1.1 400 Bad Request")
    assert answer.problem == "malformed"


async def test_http_1_0_is_served(shared: Service) -> None:
    sent = request("GET", "/healthz").replace(b"HTTP/1.1", b"HTTP/1.0")

    assert (await response_to(str(shared.client._base_url), sent)).status == 200


@pytest.mark.parametrize(
    ("method", "path", "header"),
    [
        ("GET", "/v1/campaigns", "Ledger-Min-Position: 0"),
        ("GET", "/v1/events", "Ledger-Min-Position: 0"),
        ("GET", "/v1/events/stream", "Last-Event-ID: 0"),
        ("POST", "/v1/events", "Idempotency-Key: once"),
    ],
)
async def test_a_header_of_one_value_that_is_given_twice_is_malformed(
    shared: Service, method: str, path: str, header: str
) -> None:
    head = await shared.head()
    body = json.dumps(cost()).encode()
    sent = request(method, path, header, f"{header}1", JSON, f"Content-Length: {len(body)}", body=body)

    answer = await response_to(str(shared.client._base_url), sent)

    assert (answer.status, answer.problem) == (400, "malformed")
    assert header.split(":")[0] in json.loads(answer.body)["detail"]
    assert await shared.head() == head


async def test_a_request_with_two_keys_is_malformed(database: Database) -> None:
    keys = [await key_header(database, name, "viewer") for name in ("one", "two")]
    lines = [f"{name}: {value}" for key in keys for name, value in key.items()]

    async with served(database) as url:
        answers = [await response_to(url, request("GET", "/v1/campaigns", *some)) for some in (lines, lines[:1])]

    assert [answer.status for answer in answers] == [400, 200]
    assert answers[0].problem == "malformed"


@pytest.mark.parametrize("coding", ["gzip, chunked", "deflate,chunked", "x, chunked"])
async def test_a_transfer_coding_other_than_chunked_is_malformed(shared: Service, coding: str) -> None:
    head = await shared.head()
    body = json.dumps(cost()).encode()
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)

    sent = request("POST", "/v1/events", JSON, f"Transfer-Encoding: {coding}", body=chunks)

    answer = await response_to(str(shared.client._base_url), sent)

    assert (answer.status, answer.problem) == (400, "malformed")
    assert await shared.head() == head
