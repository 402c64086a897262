"""GET /v1/events/stream with several keys: how many streams and how much memory each one gets."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import pytest

from ledger.api import event_stream, live_feed
from ledger.api.app import listen, serving
from ledger.database import Database
from ledger.key_ring import KeyRing
from tests.api.helpers import count_calls
from tests.api.hostile import request
from tests.api.sse import PATH, open_stream
from tests.api.test_keys import key_header
from tests.events import content
from tests.log.helpers import record

MIB = 1024 * 1024
CONNECTIONS_MAX = 40


@asynccontextmanager
async def served(database: Database) -> AsyncIterator[str]:
    """Serve with keys, at most 40 connections, and small buffers in the kernel; yield the URL."""
    listener = listen("127.0.0.1", 0)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
    async with serving(
        database, listener, with_worker=False, key_ring=KeyRing(database), connections_max=CONNECTIONS_MAX
    ):
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@asynccontextmanager
async def unread_stream(client: aiohttp.ClientSession) -> AsyncIterator[None]:
    """Open a stream of the whole log whose client reads its first bytes and nothing more."""
    url = client._base_url
    assert url is not None
    loop = asyncio.get_running_loop()
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        raw.setblocking(False)
        await loop.sock_connect(raw, (url.host, url.port))
        headers = [f"{name}: {value}" for name, value in client.headers.items()]
        await loop.sock_sendall(raw, request("GET", f"{PATH}?after=0", *headers))
        assert (await loop.sock_recv(raw, 15)).startswith(b"HTTP/1.1 200 OK")
        yield


async def test_a_key_gets_its_share_of_the_streams_and_another_key_still_gets_in(database: Database) -> None:
    greedy, modest = await key_header(database, "greedy", "manager"), await key_header(database, "modest", "manager")
    async with (
        served(database) as url,
        aiohttp.ClientSession(url, headers=greedy) as client,
        aiohttp.ClientSession(url, headers=modest) as another,
        AsyncExitStack() as stack,
    ):
        streams_max = CONNECTIONS_MAX * 3 // 4 // 2
        for _ in range(streams_max):
            await stack.enter_async_context(open_stream(client))
        async with client.get(PATH) as refused:
            problem = await refused.json()
        async with client.get("/v1/campaigns") as other_request:
            assert other_request.status == 200
        async with open_stream(another):
            pass

    assert (refused.status, problem["type"], refused.headers["Retry-After"]) == (503, "/problems/overloaded", "1")
    assert problem["detail"] == f"this key has {streams_max} open event streams; retry in 1 s"


async def test_a_slow_reader_delays_only_its_own_key_which_still_gets_heartbeats(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT_SECONDS", 0.2)
    monkeypatch.setattr(live_feed, "MEMORY_BYTES_MAX", 4 * MIB)
    # Larger than what is taken before a chunk is read.
    await record(database, *(content(content="n" * 1_000_000) for _ in range(3)))
    slow, quick = await key_header(database, "slow", "manager"), await key_header(database, "quick", "manager")
    async with (
        served(database) as url,
        aiohttp.ClientSession(url, headers=slow) as client,
        aiohttp.ClientSession(url, headers=quick) as another,
        AsyncExitStack() as unread,
    ):
        await unread.enter_async_context(unread_stream(client))
        await unread.enter_async_context(unread_stream(client))
        async with open_stream(another, after=0) as stream, open_stream(client, after=0) as waiting:
            assert await stream.positions(3) == [1, 2, 3]
            await waiting.heartbeat()
            await waiting.heartbeat()

            await unread.aclose()
            assert await waiting.positions(3) == [1, 2, 3]


async def test_unread_events_take_no_more_memory_than_the_share_of_their_key(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_feed, "MEMORY_BYTES_MAX", 10_000_000)
    writing = count_calls(monkeypatch, event_stream.EventStream, "_write")
    slow, quick = await key_header(database, "slow", "manager"), await key_header(database, "quick", "manager")
    async with (
        served(database) as url,
        aiohttp.ClientSession(url, headers=slow) as client,
        aiohttp.ClientSession(url, headers=quick) as another,
        AsyncExitStack() as stack,
    ):
        for _ in range(14):
            await stack.enter_async_context(unread_stream(client))
        async with open_stream(another) as stream:
            await record(database, content(content="n" * 1_000_000))
            assert await stream.positions(1) == [1]
            large = [frames for _, frames in writing if len(frames) > 1_000_000]

    # Five of the key that does not read, which are half of the total, and the one of the other key.
    assert len(large) == 5 + 1
