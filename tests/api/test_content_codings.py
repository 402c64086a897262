"""Content codings of request bodies: unknown ones are 415, and broken data fills no log."""

import asyncio
import gzip
import json
import logging
import zlib

import aiohttp
import pytest

from ledger.api.content_codings import MEMBERS_MAX, PIECE_BYTES_MAX, Decompressor, coding_of
from ledger.database import Database
from ledger.domain.errors import LedgerError, Malformed
from tests.api.helpers import slug
from tests.api.hostile import request, response_to
from tests.api.test_keys import key_header, served
from tests.conftest import Service
from tests.events import cost

JSON = {"Content-Type": "application/json"}
PACKED = gzip.compress(b"a", mtime=0)


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def decompressed(coding: str, data: bytes, part_bytes: int = 1000) -> bytes:
    """Decompress data that arrives in parts of this size."""
    decompressor = Decompressor(coding)
    parts = [data[start : start + part_bytes] for start in range(0, len(data), part_bytes)]
    pieces = [piece for part in parts for piece in decompressor.decompress(part)]
    decompressor.finish()
    assert max(map(len, pieces), default=0) <= PIECE_BYTES_MAX
    return b"".join(pieces)


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES_MAX - 1, PIECE_BYTES_MAX, PIECE_BYTES_MAX + 1, 3 * PIECE_BYTES_MAX])
@pytest.mark.parametrize("part_bytes", [1, 7, 100_000])
def test_data_is_decompressed_whole_however_it_arrives(size: int, part_bytes: int) -> None:
    data = b"a" * (size // 2) + b"b" * (size - size // 2)

    assert decompressed("gzip", gzip.compress(data), part_bytes) == data
    assert decompressed("deflate", zlib.compress(data), part_bytes) == data
    assert decompressed("deflate", raw_deflate(data), part_bytes) == data
    assert decompressed("gzip", gzip.compress(data[:100]) + gzip.compress(data[100:]), part_bytes) == data


@pytest.mark.parametrize(
    ("coding", "data"),
    [
        ("gzip", b""),
        ("gzip", b"not gzip"),
        ("gzip", PACKED[:-1]),
        ("gzip", PACKED + b"x"),
        ("gzip", gzip.compress(b"", mtime=0) * (MEMBERS_MAX + 1)),
        ("gzip", zlib.compress(b"a")),
        ("deflate", PACKED),
        ("deflate", zlib.compress(b"a") * 2),
        ("deflate", zlib.compress(b"a")[:-1]),
    ],
)
def test_data_that_does_not_match_its_coding_is_malformed(coding: str, data: bytes) -> None:
    with pytest.raises(Malformed):
        decompressed(coding, data)


@pytest.mark.parametrize(
    ("values", "coding"),
    [([], "identity"), ([""], "identity"), (["GZIP"], "gzip"), (["x-gzip"], "gzip"), (["deflate"], "deflate")],
)
def test_a_coding_is_named_in_any_case(values: list[str], coding: str) -> None:
    assert coding_of(values) == coding


@pytest.mark.parametrize(
    "values", [["zstd"], ["br"], ["gzip, gzip"], ["gzip", "gzip"], ["gzip,identity"], ["x"], ["gzip;q=1"], ["\udcff"]]
)
def test_an_unknown_or_doubled_coding_is_not_supported(values: list[str]) -> None:
    with pytest.raises(LedgerError) as raised:
        coding_of(values)

    assert raised.value.slug == "unsupported-media-type"


@pytest.mark.parametrize("coding", ["zstd", "br", "compress", "gzip, gzip", "gzip, identity"])
async def test_a_coding_that_is_not_supported_is_415_with_those_that_are(shared: Service, coding: str) -> None:
    head = await shared.head()
    sent = JSON | {"Content-Encoding": coding}
    for body in (json.dumps(cost()).encode(), gzip.compress(json.dumps(cost()).encode())):
        async with shared.client.post("/v1/events", data=body, headers=sent) as answer:
            problem = await answer.json(content_type=None)

        assert (answer.status, slug(problem)) == (415, "unsupported-media-type")
        assert answer.headers["Accept-Encoding"] == "gzip, deflate, identity"
        assert repr(coding) in problem["detail"]
    assert await shared.head() == head


@pytest.mark.parametrize("coding", ["identity", "gzip", "x-gzip", "deflate"])
async def test_a_body_of_any_supported_coding_and_size_is_read(shared: Service, coding: str) -> None:
    pack = {"identity": bytes, "deflate": zlib.compress}.get(coding, gzip.compress)
    for events in ([cost()], [cost() for _ in range(2_000)]):
        body = pack(json.dumps(events).encode())
        async with shared.client.post("/v1/events", data=body, headers=JSON | {"Content-Encoding": coding}) as answer:
            assert answer.status == 201


@pytest.mark.parametrize("with_key", [True, False])
@pytest.mark.parametrize(
    ("header", "body"),
    [
        ("Content-Encoding: gzip", b"x" * 5_000),
        ("Content-Encoding: deflate", b"x" * 5_000),
        ("Content-Encoding: zstd", b"x" * 5_000),
        ("Content-Encoding: br", b"x" * 5_000),
        ("Transfer-Encoding: chunked", b"5\r\nabcde\r\nnonsense\r\n"),
    ],
)
async def test_a_broken_body_leaves_no_line_in_the_log(
    database: Database, caplog: pytest.LogCaptureFixture, with_key: bool, header: str, body: bytes
) -> None:
    caplog.set_level(logging.INFO)
    key = await key_header(database, "agent", "agent") if with_key else {}
    length = [f"Content-Length: {len(body)}"] if "Transfer" not in header else []
    sent = request("POST", "/v1/events", *(f"{name}: {value}" for name, value in key.items()), header, *length)

    async with served(database) as url:
        # In two parts: the body is broken while the request is handled, or after it was answered.
        at_once = await response_to(url, sent + body)
        in_parts = await response_to(url, sent + body[:10], body[10:])
        await asyncio.sleep(0.2)
        async with aiohttp.ClientSession(url) as client, client.get("/healthz") as answer:
            assert answer.status == 200

    expected = {400, 415} if with_key else {401, 400}
    assert {at_once.status, in_parts.status} <= expected
    assert [line.getMessage() for line in caplog.records if line.name.split(".")[0] in ("ledger", "aiohttp")] == []
