"""Large reads of the log: pages are bounded in size, streams in memory, slow readers block nobody."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import psutil
import pytest

from ledger.api import events
from ledger.log import event_json
from tests.api.helpers import NDJSON, eventually
from tests.conftest import Service
from tests.events import content, cost, follow, job

MIB = 1024 * 1024
ACCEPT_NDJSON = {"Accept": NDJSON["Content-Type"]}
PAGE_BYTES_MAX = 10 * MIB
"""A page of 8 Mi characters of plain text, with its JSON."""


async def append_large(service: Service, count: int, characters: int) -> list[str]:
    """Append `count` assets with texts of this length; return their ids in order."""
    assets = [content(content=chr(ord("a") + number % 26) * characters) for number in range(count)]
    for asset in assets:
        await service.append(asset)
    return [asset["id"] for asset in assets]


async def test_pages_of_large_events_are_bounded_in_size_and_lose_no_event(service: Service) -> None:
    ids = await append_large(service, 20, 900_000)

    found: list[str] = []
    sizes: list[int] = []
    after: int | None = 0
    while after is not None:
        async with service.client.get("/v1/events", params={"after": after}) as answer:
            sizes.append(len(await answer.read()))
            page = await answer.json()
        assert all(len(event["data"]["content"]) == 900_000 for event in page["events"])
        found += [event["id"] for event in page["events"]]
        after = page["next_after"]

    assert found == ids
    assert max(sizes) < PAGE_BYTES_MAX
    assert len(sizes) == 3


async def test_ndjson_streams_and_timelines_of_large_events_are_complete(service: Service) -> None:
    asset = content(content="a" * 900_000)
    await service.append(asset)
    for number in range(19):
        await service.append(follow(asset, "content.revised", {"content": chr(ord("b") + number) * 900_000}))

    async with service.client.get("/v1/events", headers=ACCEPT_NDJSON) as answer:
        events = [json.loads(line) async for line in _lines(answer)]
    stream = await service.get(f"/v1/streams/content/{asset['id']}")

    assert [event["version"] for event in events] == list(range(1, 21))
    assert stream == {"version": 20, "events": events}


async def _lines(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in answer.content.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
    assert rest == b""


async def test_an_event_larger_than_a_page_is_a_page_alone(service: Service) -> None:
    large = job(input_data={"text": "x" * (12 * MIB)})
    await service.append(cost(), large, cost())

    pages: list[list[int]] = []
    after: int | None = 0
    while after is not None:
        page = await service.get("/v1/events", after=after)
        pages.append([event["position"] for event in page["events"]])
        after = page["next_after"]

    assert pages == [[1], [2], [3]]


async def test_ndjson_ends_although_events_are_appended_meanwhile(service: Service, monkeypatch: Any) -> None:
    monkeypatch.setattr(events, "PAGE_EVENTS", 10)
    await service.append(*(cost() for _ in range(30)))
    original = event_json.read_json_page

    async def read_page_while_others_write(*arguments: Any) -> Any:
        page = await original(*arguments)
        await service.append(cost())
        return page

    monkeypatch.setattr(event_json, "read_json_page", read_page_while_others_write)
    async with service.client.get("/v1/events", headers=ACCEPT_NDJSON) as answer:
        body = await answer.read()

    assert [json.loads(line)["position"] for line in body.splitlines()] == list(range(1, 31))


async def test_an_aborted_response_does_not_end_like_a_complete_one(service: Service, monkeypatch: Any) -> None:
    asset = content()
    revisions = [follow(asset, "content.revised", {"title": f"{number}"}) for number in range(30)]
    await service.append(asset, *revisions)
    original = event_json.read_json_page
    pages = 0

    async def fail_on_the_second_page(connection: Any, event_filter: Any, *_: int) -> Any:
        nonlocal pages
        pages += 1
        if pages % 2 == 0:
            raise ConnectionResetError("the database went away")
        return await original(connection, event_filter, 10)

    monkeypatch.setattr(event_json, "read_json_page", fail_on_the_second_page)

    for path, headers in [("/v1/events", ACCEPT_NDJSON), (f"/v1/streams/content/{asset['id']}", {})]:
        with pytest.raises(aiohttp.ClientError):
            async with asyncio.timeout(5), service.client.get(path, headers=headers) as answer:
                await answer.read()


async def test_slow_readers_delay_their_own_pages_and_block_nobody_else(service: Service, monkeypatch: Any) -> None:
    await append_large(service, 40, 900_000)
    original = event_json.read_json_page
    pages = 0

    async def count(*arguments: Any) -> Any:
        nonlocal pages
        pages += 1
        return await original(*arguments)

    monkeypatch.setattr(event_json, "read_json_page", count)
    # More clients than the pool has connections; none of them reads its response.
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(service.client._base_url, connector=connector, read_bufsize=1024) as client:
        readers = [await client.get("/v1/events", headers=ACCEPT_NDJSON) for _ in range(12)]

        async def all_have_begun() -> bool:
            return pages >= 12

        await eventually(all_have_begun)
        async with asyncio.timeout(2):
            await service.append(cost())
            assert (await service.get("/v1/spend"))["items"][0]["cost"] == "1"
        assert pages < 12 * 40 / 2
        for reader in readers:
            reader.close()

    assert (await service.get("/readyz"))["status"] == "ok"


async def _serve(service: Service, home: Any) -> tuple[subprocess.Popen[str], str]:
    """Run `ledger serve` on the service's database, in another process."""
    environment = os.environ | {
        "DATABASE_URL": service.database_url.render_as_string(hide_password=False),
        "LEDGER_HOME": str(home),
    }
    command = [sys.executable, "-m", "ledger", "serve", "--no-auth", "--port", "0"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = await asyncio.to_thread(process.stdout.readline)
    return process, next(word for word in line.split() if word.startswith("http"))


async def test_the_memory_of_an_export_does_not_grow_with_the_log(service: Service, tmp_path: Any) -> None:
    for _ in range(6):
        await service.append(*(cost(description="d" * 400) for _ in range(5_000)))
    process, url = await _serve(service, tmp_path)
    try:
        server = psutil.Process(process.pid)
        async with aiohttp.ClientSession(url) as client:
            await (await client.get("/v1/events", params={"limit": 5_000})).read()
            rss_before = server.memory_info().rss
            rss_peak, size, count = 0, 0, 0
            async with client.get("/v1/events", headers=ACCEPT_NDJSON) as answer:
                async for chunk in answer.content.iter_any():
                    size, count = size + len(chunk), count + chunk.count(b"\n")
                    rss_peak = max(rss_peak, server.memory_info().rss)
    finally:
        process.send_signal(signal.SIGTERM)
        exit_code = await asyncio.to_thread(process.wait, 15)

    assert count == 30_000
    assert size > 20 * MIB
    # One or two pages are in memory; as objects, all six would take two or three times the size of the response.
    assert rss_peak - rss_before < 32 * MIB
    assert exit_code == 0
