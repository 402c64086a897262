"""Compressed answers to reads: on both paths, and for streams, if the client accepts gzip."""

import gzip
import zlib
from typing import Any

import pytest

from ledger.api import compression
from ledger.api.compression import Compressor, accepts_gzip, compress
from tests.conftest import Service
from tests.events import campaign, cost

LONG = {
    "fast path": "/v1/budget-entries?limit=10",
    "aiohttp": "/v1/budget-entries?limit=10&sort=cost",
    "page of the log": "/v1/events?limit=10",
    "document": "/openapi.json",
}


@pytest.fixture(scope="module")
async def filled(shared: Service) -> dict[str, Any]:
    """Twenty costs of one campaign; returns the campaign."""
    created = campaign()
    await shared.append(created, *(cost("1", campaign_id=created["id"]) for _ in range(20)))
    await shared.get("/v1/spend")
    return created


async def read(service: Service, path: str, accepted: str | None, **headers: str) -> tuple[Any, bytes]:
    """Return the headers and the body of a response, as they were sent."""
    asked = headers if accepted is None else {**headers, "Accept-Encoding": accepted}
    skip = ["Accept-Encoding"] if accepted is None else []
    async with service.client.get(path, headers=asked, skip_auto_headers=skip, allow_redirects=False) as answer:
        assert answer.status == 200
        return answer.headers, await answer.read()


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("gzip", True),
        ("x-gzip", True),
        ("GZIP;Q=0.5", True),
        ("br, gzip;q=0.001", True),
        ("*", True),
        ("identity;q=1, *;q=0.5", True),
        ("", False),
        ("br", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("*, gzip;q=0", False),
        ("*;q=0", False),
        ("gzip;q=2", False),
        ("gzip;level=9", False),
        ("gzipped", False),
    ],
)
def test_gzip_is_accepted_as_the_header_says(header: str, accepted: bool) -> None:
    assert accepts_gzip(header) == accepted


@pytest.mark.parametrize("path", LONG.values(), ids=LONG)
async def test_a_long_answer_is_compressed_only_for_clients_that_accept_it(
    shared: Service, filled: dict[str, Any], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_headers, plain = await read(shared, path, None)
    refused_headers, refused = await read(shared, path, "gzip;q=0")
    # The client decompresses the body, whose length it has from the header.
    gzipped_headers, gzipped = await read(shared, path, "gzip")

    assert plain == refused == gzipped
    assert [headers.get("Content-Encoding") for headers in (plain_headers, refused_headers, gzipped_headers)] == [
        None,
        None,
        "gzip",
    ]
    assert {headers["Vary"] for headers in (plain_headers, refused_headers, gzipped_headers)} == {"Accept-Encoding"}
    assert int(gzipped_headers["Content-Length"]) < int(plain_headers["Content-Length"]) == len(plain)


async def test_short_answers_errors_and_answers_to_appends_are_not_compressed(
    shared: Service, filled: dict[str, Any]
) -> None:
    short, _ = await read(shared, f"/v1/campaigns/{filled['id']}/budget", "gzip")
    events = [cost("1", campaign_id=filled["id"]) for _ in range(20)]
    async with shared.client.post("/v1/events", json=events, headers={"Accept-Encoding": "gzip"}) as appended:
        assert len(await appended.read()) > compression.PLAIN_BYTES_MAX
    async with shared.client.get("/v1/campaigns?" + "x" * 2000, headers={"Accept-Encoding": "gzip"}) as refused:
        assert refused.status == 400

    assert [each.get("Content-Encoding") for each in (short, appended.headers, refused.headers)] == [None] * 3


@pytest.mark.parametrize(
    ("path", "headers"),
    [("/v1/events", {"Accept": "application/x-ndjson"}), ("/v1/log/export", {})],
)
async def test_streamed_events_are_compressed(
    shared: Service, filled: dict[str, Any], path: str, headers: dict[str, str]
) -> None:
    _, plain = await read(shared, path + "?until=20", None, **headers)
    sent, gzipped = await read(shared, path + "?until=20", "gzip", **headers)

    assert (sent["Content-Encoding"], sent["Vary"], gzipped) == ("gzip", "Accept-Encoding", plain)


async def test_the_etag_of_a_compressed_stream_is_weak_and_still_matches(shared: Service) -> None:
    created = campaign(description="d" * 1000)
    await shared.append(created)
    path = f"/v1/streams/campaign/{created['id']}"

    plain, _ = await read(shared, path, None)
    gzipped, _ = await read(shared, path, "gzip")
    async with shared.client.get(path, headers={"If-None-Match": gzipped["ETag"]}) as unchanged:
        status = unchanged.status

    assert (plain["ETag"], gzipped["ETag"], status) == ('"1"', 'W/"1"', 304)


async def test_an_event_stream_is_not_compressed(shared: Service, filled: dict[str, Any]) -> None:
    headers = {"Accept-Encoding": "gzip"}
    async with shared.client.get("/v1/events/stream?after=0", headers=headers) as answer:
        assert answer.headers.get("Content-Encoding") is None
        assert (await answer.content.readline()).startswith(b"retry: ")


@pytest.mark.parametrize("length", [0, 1, compression.INLINE_BYTES_MAX + 1])
async def test_a_body_survives_in_one_piece_and_in_parts(length: int) -> None:
    body = bytes(number % 251 for number in range(length))
    compressor = Compressor()
    parts = [await compressor.compress(part) for part in (body, body)]

    # Each part can be decompressed when it arrives.
    stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
    assert [stream.decompress(part) for part in parts] == [body, body]
    assert (stream.decompress(compressor.finish()), stream.eof) == (b"", True)
    assert gzip.decompress(await compress(body)) == body
