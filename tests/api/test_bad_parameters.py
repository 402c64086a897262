"""Invalid parameters, paths, headers and cursors, and paths that do not exist."""

import asyncio
import base64
import json
import time
import uuid
from typing import Any

import pytest
from yarl import URL

from ledger.api.collections import COLLECTIONS as SHOWN
from tests.api.helpers import assert_is_problem, slug
from tests.conftest import Service
from tests.events import campaign, cost, job

SOMETHING = "11111111-1111-4111-8111-111111111111"
COLLECTIONS = tuple(collection.path.removeprefix("/v1/") for collection in SHOWN)


async def refused(service: Service, address: str, **headers: str) -> tuple[int, str]:
    """Read a URL that must be refused; return status and slug. The URL is sent as it is."""
    async with service.client.get(URL(address, encoded=True), headers=headers) as answer:
        assert answer.content_type == "application/problem+json", await answer.text()
        problem = await answer.json(content_type=None)
        assert_is_problem(problem, answer.status)
        return answer.status, slug(problem)


MALFORMED = (400, "malformed")

READS = [
    *(f"/v1/{name}" for name in COLLECTIONS),
    *(f"/v1/{name}/{SOMETHING}" for name in COLLECTIONS),
    f"/v1/campaigns/{SOMETHING}/budget",
    f"/v1/campaigns/{SOMETHING}/timeline",
    "/v1/events",
    "/v1/events/1",
    f"/v1/streams/cost/{SOMETHING}",
    "/v1/spend",
    "/v1/projections",
    "/healthz",
    "/readyz",
    "/openapi.json",
]


@pytest.mark.parametrize("path", READS)
async def test_an_unknown_query_parameter_is_malformed_on_every_route(shared: Service, path: str) -> None:
    assert await refused(shared, f"{path}?colour=red") == MALFORMED
    assert await refused(shared, f"{path}?=") == MALFORMED


@pytest.mark.parametrize(
    "address",
    [
        "/v1/campaigns?limit=1&limit=1",
        "/v1/campaigns?status=draft&status=active",
        "/v1/events?type=a&type=b",
        "/v1/spend?group_by=day&group_by=provider",
    ],
)
async def test_a_parameter_given_twice_is_malformed(shared: Service, address: str) -> None:
    assert await refused(shared, address) == MALFORMED


BAD_NUMBERS = [
    "",
    "-1",
    "1.5",
    "x",
    "true",
    "null",
    "NULL",
    "1_0",
    "%D9%A5",
    "0x1",
    "NaN",
    "1e400",
    "9" * 30,
    "9" * 5_000,
]


@pytest.mark.parametrize("number", [*BAD_NUMBERS, "0", "501"])
@pytest.mark.parametrize("name", COLLECTIONS)
async def test_a_bad_limit_is_malformed(shared: Service, name: str, number: str) -> None:
    assert await refused(shared, f"/v1/{name}?limit={number}") == MALFORMED


@pytest.mark.parametrize("limit", [*BAD_NUMBERS, "0", "5001"])
async def test_a_bad_limit_of_events_is_malformed(shared: Service, limit: str) -> None:
    assert await refused(shared, f"/v1/events?limit={limit}") == MALFORMED


@pytest.mark.parametrize("position", [*BAD_NUMBERS, str(2**63)])
async def test_an_invalid_position_is_malformed(shared: Service, position: str) -> None:
    for parameter in ("after", "until"):
        assert await refused(shared, f"/v1/events?{parameter}={position}") == MALFORMED
    assert await refused(shared, f"/v1/campaigns?min_position={position}") == MALFORMED
    assert await refused(shared, f"/v1/campaigns/{SOMETHING}?min_position={position}") == MALFORMED
    if position:
        assert await refused(shared, f"/v1/events/{position}") == MALFORMED
    if position.isascii() and "%" not in position:
        assert await refused(shared, "/v1/campaigns", **{"Ledger-Min-Position": position}) == MALFORMED


async def test_the_path_of_an_event_that_does_not_exist_is_not_found(shared: Service) -> None:
    for position in (0, 2**63 - 1):
        assert await refused(shared, f"/v1/events/{position}") == (404, "not-found")


@pytest.mark.parametrize(
    "text", ["", "1", "x" * 36, SOMETHING[:-1], SOMETHING + "0", "null", "NULL", "Null", "%00", "%FF", "..."]
)
async def test_an_invalid_uuid_is_malformed(shared: Service, text: str) -> None:
    if text:
        for path in ("/v1/campaigns/{}", "/v1/campaigns/{}/budget", "/v1/campaigns/{}/timeline", "/v1/streams/job/{}"):
            assert await refused(shared, path.format(text)) == MALFORMED
    for parameter in ("stream_id", "campaign_id", "agent_job_id"):
        assert await refused(shared, f"/v1/events?{parameter}={text}") == MALFORMED
    assert await refused(shared, f"/v1/spend?campaign_id={text}") == MALFORMED
    assert await refused(shared, f"/v1/budget-entries?campaign_id={SOMETHING},{text}") == MALFORMED


@pytest.mark.parametrize(
    "when",
    [
        "",
        "yesterday",
        "2025-01-01T00:00:00",
        "2025-13-01T00:00:00Z",
        "null",
        "NULL",
        "2025",
        "1735689600",
        "1e300",
        "%00",
        "0001-01-01T00:00:00%2B23:59",
        "9999-12-31T23:59:59-23:59",
        "2025-01-01T00:00:00+00:00",
    ],
)
async def test_an_invalid_time_or_one_without_a_zone_is_malformed(shared: Service, when: str) -> None:
    for name in COLLECTIONS:
        assert await refused(shared, f"/v1/{name}?created_after={when}") == MALFORMED
        assert await refused(shared, f"/v1/{name}?created_before={when}") == MALFORMED
    assert await refused(shared, f"/v1/budget-entries?occurred_after={when}") == MALFORMED
    assert await refused(shared, f"/v1/spend?from={when}") == MALFORMED
    assert await refused(shared, f"/v1/spend?to={when}") == MALFORMED


@pytest.mark.parametrize(
    "address",
    [
        "/v1/campaigns?status=deleted",
        "/v1/campaigns?status=draft,",
        "/v1/campaigns?status=",
        "/v1/campaigns?status=DRAFT",
        "/v1/budget-entries?status=denied",
        "/v1/events?category=beer",
        "/v1/events?type=%00",
        "/v1/campaigns?name=a%00b",
        "/v1/campaigns?name=%ff",
        "/v1/campaigns?name=%C3%28",
        "/v1/campaigns?name=%ED%A0%80",
        "/v1/campaigns?%ff=a",
        "/v1/campaigns?budget=1",
        "/v1/spend?group_by=beer",
        "/v1/spend?group_by=",
        "/v1/spend?group_by=day,day",
        "/v1/spend?group_by=currency",
    ],
)
async def test_an_invalid_value_is_malformed(shared: Service, address: str) -> None:
    assert await refused(shared, address) == MALFORMED


@pytest.mark.parametrize("sort", ["", "-", "budget", "--name", "name,name", "name,-name", "id,id", "name;", "name%00"])
async def test_a_bad_sort_is_malformed(shared: Service, sort: str) -> None:
    assert await refused(shared, f"/v1/campaigns?sort={sort}") == MALFORMED


def cursor(sort: str, *values: Any) -> str:
    """Return a cursor in the format of the service, to be tampered with."""
    return base64.urlsafe_b64encode(json.dumps([sort, values]).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "text",
    ["", "x", "null", "%00", "a%00b", "%D9%A1", "W10", "bnVsbA", "====", "A" * 5_000, "W1td", "eyJhIjoxfQ", "-_-_"],
)
async def test_an_invented_cursor_is_malformed(shared: Service, text: str) -> None:
    for name in COLLECTIONS:
        assert await refused(shared, f"/v1/{name}?cursor={text}") == MALFORMED


async def test_a_cursor_of_another_sort_or_another_collection_is_malformed(shared: Service) -> None:
    await shared.append(campaign(), campaign(), job(), job())
    of_campaigns = (await shared.get("/v1/campaigns", limit=1))["next"]

    assert await refused(shared, f"/v1/campaigns?sort=created_at&cursor={of_campaigns}") == MALFORMED
    assert await refused(shared, f"/v1/campaigns?sort=-spend&cursor={of_campaigns}") == MALFORMED
    assert await refused(shared, f"/v1/agent-jobs?cursor={of_campaigns}") == MALFORMED


AN_AMOUNT: list[Any] = ["NaN", "sNaN", "Infinity", "-Infinity", "1e400", "1e999999999", "-1e999999999", "1e-999999999"]
AN_AMOUNT += ["9" * 5_000, 1e300, float("nan"), None, True, "x", [], {}]
A_TIME = ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2025-01-01T00:00:00", 5, None, "x", "\0"]


@pytest.mark.parametrize(
    ("sort", "value"),
    [
        *(("spend", value) for value in AN_AMOUNT),
        *(("created_at", value) for value in A_TIME),
        *(("name", value) for value in (5, None, "a\0b", ["a"], "\ud800")),
    ],
)
async def test_a_cursor_with_an_invalid_value_is_malformed_without_a_query(
    shared: Service, sort: str, value: Any
) -> None:
    started = time.monotonic()

    for order in (sort, f"-{sort}"):
        assert (
            await refused(shared, f"/v1/campaigns?sort={order}&cursor={cursor(order, value, SOMETHING)}") == MALFORMED
        )

    assert time.monotonic() - started < 2


@pytest.mark.parametrize("values", [[], ["a"], ["a", SOMETHING, "b"], ["a", 5], ["a", "no uuid"], ["a", None]])
async def test_a_cursor_of_another_shape_is_malformed(shared: Service, values: list[Any]) -> None:
    assert await refused(shared, f"/v1/campaigns?sort=name&cursor={cursor('name', *values)}") == MALFORMED


@pytest.mark.parametrize(
    "path",
    ["/", "/v1", "/v2/events", "/v1/events/", "/v1/campaigns/", "/v1/keys/../events/x/y", "/%00", "/%FF"]
    + [f"/v1/streams/beer/{SOMETHING}", f"/v1/streams/campaigns/{SOMETHING}", f"/v1/streams/cost/{SOMETHING}"]
    + [f"/v1/{name}/{SOMETHING}" for name in COLLECTIONS]
    + [f"/v1/campaigns/{SOMETHING}/{rest}" for rest in ("budget", "timeline", "beer")],
)
async def test_a_path_or_item_that_does_not_exist_is_not_found(shared: Service, path: str) -> None:
    assert await refused(shared, path) == (404, "not-found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/events", {"GET", "HEAD", "POST"}),
        ("DELETE", "/v1/events/1", {"GET", "HEAD"}),
        ("PATCH", f"/v1/campaigns/{SOMETHING}", {"GET", "HEAD"}),
        ("POST", "/v1/campaigns", {"GET", "HEAD"}),
        ("OPTIONS", "/v1/spend", {"GET", "HEAD"}),
        ("POST", "/healthz", {"GET", "HEAD"}),
    ],
)
async def test_another_method_is_405_with_the_allowed_methods(
    shared: Service, method: str, path: str, allowed: set[str]
) -> None:
    async with shared.client.request(method, path) as answer:
        problem = await answer.json(content_type=None)

        assert answer.status == 405
        assert answer.content_type == "application/problem+json"
        assert {name.strip() for name in answer.headers["Allow"].split(",")} == allowed
        assert_is_problem(problem, 405)


@pytest.mark.parametrize("header", [b"Idempotency-Key: \xff\xfe", b"Content-Type: text/\xff", b"Content-Type: \xff"])
async def test_a_header_that_is_not_utf_8_is_malformed(shared: Service, header: bytes) -> None:
    head = await shared.head()
    body = json.dumps({"type": "cost.recorded", "data": {"resource_type": "other", "cost": 1}}).encode()
    address = shared.client._base_url
    assert address is not None
    reader, writer = await asyncio.open_connection(address.host, address.port)

    writer.write(b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + header)
    writer.write(b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    answer = await reader.read()
    writer.close()

    assert int(answer.split()[1]) in (400, 415)
    assert b"application/problem+json" in answer
    assert await shared.head() == head


@pytest.mark.parametrize("path", ["/healthz", "/v1/projections", "/v1/campaigns", "/v1/events"])
@pytest.mark.parametrize("empty", ["?", "?&", "?&&&"])
async def test_a_query_string_without_parameters_is_accepted(shared: Service, path: str, empty: str) -> None:
    async with shared.client.get(URL(path + empty, encoded=True)) as answer:
        assert answer.status == 200


async def test_after_all_these_requests_the_service_is_ready_and_accepts_events(shared: Service) -> None:
    assert (await shared.get("/readyz"))["status"] == "ok"
    assert (await shared.append(cost()))[0]["version"] == 1
    assert uuid.UUID((await shared.get("/v1/budget-entries"))["items"][0]["id"])
