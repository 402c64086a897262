"""Checkpoint, tiles and entry bundles over HTTP, read by an independent C2SP client."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pymerkle
import pytest
from sqlalchemy import URL

from ledger import sample_data
from ledger.audit.signing_files import SigningFiles
from ledger.database import Database
from ledger.log.appender import Appender
from tests.api.helpers import slug
from tests.audit import naive
from tests.audit.sealing import (
    ORIGIN,
    RecordingFiles,
    clone,
    entries_of,
    fill,
    get_json,
    open_database,
    sealer_of,
    served,
)
from tests.audit.tlog_client import Head, TileClient, split_bundle
from tests.events import cost
from tests.log.helpers import record

STEPS = [0, 1, 2, 255, 256, 257]


async def test_at_every_size_another_implementation_computes_the_same_tree(database: Database, tmp_path: Path) -> None:
    sealer = await sealer_of(database, RecordingFiles(tmp_path))
    heads: list[Head] = []
    chance = random.Random(7)
    steps = [*STEPS, *(257 + 300 * number + chance.randrange(300) for number in range(4))]
    async with served(database) as client:
        log = TileClient(client)
        for size in steps:
            at = heads[-1].size if heads else 0
            if size > at:
                await record(database, *(cost(description=f"a cost, the {number}th") for number in range(at, size)))
            await sealer.seal()

            head = await log.head()
            entries = await log.walk(head, tuple(heads))

            assert (head.origin, head.size) == (ORIGIN, size)
            assert entries == await entries_of(database)
            heads.append(head)
    other = pymerkle.InmemoryTree(algorithm="sha256")
    for entry in entries:
        other.append_entry(entry)
    assert [other.get_root(head.size) for head in heads if head.size] == [head.root for head in heads if head.size]


async def test_the_sample_data_of_every_category_is_sealed(database: Database, tmp_path: Path) -> None:
    async with Appender(database) as appender, served(database) as client:
        await sample_data.seed(database, appender)
        await (await sealer_of(database, RecordingFiles(tmp_path))).seal()
        log = TileClient(client)

        entries = await log.walk(await log.head())

    assert entries == await entries_of(database)
    assert len(entries) > 20


async def test_65536_events_make_a_tile_of_the_second_level(database: Database, tmp_path: Path) -> None:
    sealer = await sealer_of(database, RecordingFiles(tmp_path))
    async with served(database) as client:
        log = TileClient(client)
        await fill(database, 65_536)
        await sealer.seal()
        before = await log.head()
        await fill(database, 1)
        await sealer.seal()
        head = await log.head()

        hashes = []
        for index in range(257):
            tile = await log.tile(0, index, 256 if index < 256 else 1)
            hashes += [tile[at : at + 32] for at in range(0, len(tile), 32)]
        tiles = naive.tiles(hashes)
        found = {
            coordinates: await log.tile(*coordinates, len(tile) // 32)
            for coordinates, tile in tiles.items()
            if coordinates[0]
        }
        bundle = await log.tile("entries", 255, 256)
        proof = (await get_json(client, "/v1/log/proof/inclusion", position=65_537))[1]
        between = (await get_json(client, "/v1/log/proof/consistency", **{"from": 65_536}))[1]

    assert (before.size, head.size) == (65_536, 65_537)
    assert (naive.root(hashes[:-1]), naive.root(hashes)) == (before.root, head.root)
    assert sorted(found) == [(1, 0), (2, 0)]
    assert found == {coordinates: tile for coordinates, tile in tiles.items() if coordinates[0]}
    assert naive.leaf_hashes(split_bundle(bundle)) == hashes[65_280:65_536]
    assert proof["leaf_index"] == 65_536
    assert len(proof["hashes"]) == len(between["hashes"]) == 1


@pytest.fixture(scope="module")
async def sealed(
    server_url: URL, template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a client of a log with 300 sealed events and two more that are not sealed."""
    url = server_url.set(database=f"tiles_{uuid.uuid4().hex[:12]}")
    await clone(server_url.set(database=template), url)
    async with open_database(url) as database, served(database) as client:
        await fill(database, 300)
        await (await sealer_of(database, SigningFiles(tmp_path_factory.mktemp("home"), None, ORIGIN))).seal()
        await fill(database, 2)
        yield client


async def raw(client: aiohttp.ClientSession, target: str) -> tuple[int, bytes]:
    """Request exactly this path: clients normalize paths."""
    url = client._base_url
    assert url is not None
    assert url.host is not None
    assert url.port is not None
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: {url.host}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return int(answer.split(b" ", 2)[1]), answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("name", ["0/000", "0/001.p/44", "0/001.p/1", "0/000.p/255", "1/000.p/1", "entries/001.p/44"])
async def test_a_tile_is_served_in_every_width_up_to_its_own(sealed: aiohttp.ClientSession, name: str) -> None:
    status, body = await raw(sealed, f"/v1/log/tile/{name}")

    width = int(name.partition(".p/")[2] or 256)
    assert status == 200
    assert len(body) == 32 * width if not name.startswith("entries") else body.count(b'{"v":1,') == width


@pytest.mark.parametrize(
    "name",
    [
        "0/001",
        "0/001.p/45",
        "0/002",
        "0/002.p/1",
        "1/000",
        "1/000.p/2",
        "1/001.p/1",
        "2/000.p/1",
        "63/000.p/1",
        "0/x001/000",
        "0/x999/x999/x999/x999/x999/x999/999",
        "entries/001",
        "entries/001.p/45",
        "entries/002.p/1",
    ],
)
async def test_tiles_beyond_the_sealed_tree_are_not_found(sealed: aiohttp.ClientSession, name: str) -> None:
    status, problem = await get_json(sealed, f"/v1/log/tile/{name}")

    assert (status, slug(problem)) == (404, "not-found")
    assert name in problem["detail"]


@pytest.mark.parametrize(
    "name",
    [
        "0",
        "0/",
        "/000",
        "0/000/",
        "0//000",
        "0/0",
        "0/0000",
        "0/x000/001",
        "0/X001/000",
        "0/x001",
        "0/000.p",
        "0/000.p/",
        "0/000.p/0",
        "0/000.p/01",
        "0/000.p/256",
        "0/000.p/300",
        "0/000.p/1000",
        "0/000.P/1",
        "0/000.p/-1",
        "0/000.p/1/",
        "0/../0/000",
        "../checkpoint",
        "0%2F000",
        "0/%30%30%30",
        "0/000%2Ep/5",
        "0/000%00",
        "0/%D9%A0%D9%A0%D9%A0",
        "00/000",
        "64/000.p/1",
        "100/000",
        "-1/000",
        "+0/000",
        "ENTRIES/000",
        "data/000",
        "entries",
        "entries/",
        "entries/000.p/0",
        "entries/0/000",
        "0/000.tmp",
        "0/000%20",
    ],
)
async def test_each_tile_has_exactly_one_path(sealed: aiohttp.ClientSession, name: str) -> None:
    status, body = await raw(sealed, "/v1/log/tile/" + name)

    assert status in (400, 404)
    assert b'"type":"/problems/' in body


async def test_a_tile_has_no_parameters(sealed: aiohttp.ClientSession) -> None:
    status, problem = await get_json(sealed, "/v1/log/tile/0/000", width=3)

    assert (status, slug(problem)) == (400, "malformed")


async def test_before_the_first_seal_everything_is_not_found(database: Database) -> None:
    await record(database, cost())
    addresses = ["checkpoint", "key", "tile/0/000.p/1", "tile/entries/000.p/1"]
    addresses += ["proof/inclusion?position=1", "proof/consistency?from=0"]

    async with served(database) as client:
        answers = [await get_json(client, f"/v1/log/{address}") for address in addresses]

    assert {(status, slug(problem)) for status, problem in answers} == {(404, "not-found")}


async def test_the_checkpoint_is_not_cached_and_tiles_are_cached_forever(
    sealed: aiohttp.ClientSession,
) -> None:
    caching = {}
    for name in ("checkpoint", "key", "tile/0/000", "tile/entries/000", "tile/0/001.p/3"):
        async with sealed.get(f"/v1/log/{name}") as answer:
            caching[name] = answer.headers["Cache-Control"], answer.headers["Content-Type"]

    cached = ("private, max-age=31536000, immutable", "application/octet-stream")
    assert caching == {
        "checkpoint": ("private, no-cache", "text/plain; charset=utf-8"),
        "key": ("private, no-cache", "text/plain; charset=utf-8"),
        "tile/0/000": cached,
        "tile/entries/000": cached,
        "tile/0/001.p/3": cached,
    }


async def test_an_incomplete_tile_is_not_served(database: Database, tmp_path: Path) -> None:
    await fill(database, 3)
    await (await sealer_of(database, RecordingFiles(tmp_path))).seal()
    async with served(database) as client:
        async with database.engine.begin() as connection:
            await connection.exec_driver_sql("UPDATE ledger.log_tiles SET hashes = substr(hashes, 1, 64)")
        cut = [await get_json(client, f"/v1/log/{name}") for name in ("tile/0/000.p/3", "proof/inclusion?position=1")]
        async with database.engine.begin() as connection:
            await connection.exec_driver_sql("DELETE FROM ledger.log_tiles")
        missing = await get_json(client, "/v1/log/tile/0/000.p/1")
        async with client.get("/v1/log/tile/0/000.p/1") as answer:
            caching = answer.headers.get("Cache-Control")

    assert [(status, slug(problem)) for status, problem in (*cut, missing)] == [(500, "internal-error")] * 3
    assert "tile 0 of level 0" in missing[1]["detail"]
    assert caching == "no-store"
