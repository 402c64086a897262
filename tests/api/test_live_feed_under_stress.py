"""GET /v1/events/stream with many subscribers, slow readers, outages, shutdown, and a reset log."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest

from ledger.api import event_stream, live_feed, recent_events
from ledger.api.app import SHUTDOWN_SECONDS, listen, serving
from ledger.database import Database
from tests.api.helpers import count_calls, eventually
from tests.api.sse import PATH, Stream, open_stream
from tests.conftest import Service
from tests.events import content, cost, job

LISTENERS = 600

Outage = Callable[[bool], Awaitable[None]]


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Record the pages of the log that the feed reads."""
    found: list[Any] = []
    original = live_feed.read_page

    async def read_page(*arguments: Any) -> Any:
        page = await original(*arguments)
        found.append([event.position for event in page])
        return page

    monkeypatch.setattr(live_feed, "read_page", read_page)
    return found


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> list[recent_events.RecentEvents]:
    """Record the windows that the feed creates."""
    created: list[recent_events.RecentEvents] = []

    class RecordedWindow(recent_events.RecentEvents):
        def __init__(self, position: int) -> None:
            super().__init__(position)
            created.append(self)

    monkeypatch.setattr(live_feed, "RecentEvents", RecordedWindow)
    return created


async def test_an_event_reaches_hundreds_of_subscribers_by_one_read_of_the_log(
    service: Service, pages: list[Any]
) -> None:
    address = str(service.client._base_url)
    async with (
        aiohttp.ClientSession(address, connector=aiohttp.TCPConnector(limit=0)) as client,
        AsyncExitStack() as stack,
    ):
        opening = (stack.enter_async_context(open_stream(client)) for _ in range(LISTENERS))
        streams: list[Stream] = list(await asyncio.gather(*opening))
        assert pages == []

        for position in (1, 2, 3):
            await service.append(cost())
            assert await asyncio.gather(*(stream.positions(1) for stream in streams)) == [[position]] * LISTENERS

        assert pages == [[1], [2], [3]]


@asynccontextmanager
async def unread_stream(service: Service, query: str = "") -> AsyncIterator[socket.socket]:
    """Open an event stream whose client reads the headers and nothing more."""
    address = service.client._base_url
    assert address is not None
    loop = asyncio.get_running_loop()
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        raw.setblocking(False)
        await loop.sock_connect(raw, (address.host, address.port))
        await loop.sock_sendall(raw, f"GET {PATH}{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert (await loop.sock_recv(raw, 15)).startswith(b"HTTP/1.1 200 OK")
        yield raw


async def ended_properly(raw: socket.socket) -> bool:
    """Return whether the response ends properly, with an empty chunk, instead of being aborted."""
    received = b""
    async with asyncio.timeout(20):
        with suppress(ConnectionResetError):
            while more := await asyncio.get_running_loop().sock_recv(raw, 1 << 20):
                received = (received + more)[-5:]
    return received == b"0\r\n\r\n"


async def test_a_client_that_does_not_read_is_aborted_and_delays_nobody(
    service: Service,
    windows: list[recent_events.RecentEvents],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(event_stream, "WRITE_SECONDS_MAX", 1.0)
    monkeypatch.setattr(recent_events, "RECENT_BYTES_MAX", 1024 * 1024)
    large = content(content="n" * 200_000)

    async with unread_stream(service, "?after=0") as live, open_stream(service.client) as reader:
        for position in range(1, 81):
            await service.append(large | {"id": content()["id"]})
            assert await reader.positions(1) == [position]
            assert all(window.size <= 1024 * 1024 for window in windows)

        await eventually(aborted(caplog))
        assert not await ended_properly(live)

        async with unread_stream(service, "?after=0") as behind:
            await eventually(aborted(caplog, 2))
            assert not await ended_properly(behind)
        await service.append(cost())
        assert await reader.positions(1) == [81]
    assert len(windows) == 1


async def test_a_slow_client_falls_behind_and_still_gets_everything(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent_events, "RECENT_BYTES_MAX", 1024 * 1024)
    caught_up = count_calls(monkeypatch, live_feed.LiveFeed, "catch_up")
    large = content(content="n" * 200_000)

    async with open_stream(service.client) as slow, open_stream(service.client) as quick:
        for position in range(1, 101):
            await service.append(large | {"id": content()["id"]})
            assert await quick.positions(1) == [position]
        assert caught_up == []

        assert await slow.positions(100) == list(range(1, 101))
    assert caught_up


def aborted(caplog: pytest.LogCaptureFixture, count: int = 1) -> Callable[[], Awaitable[bool]]:
    """Return a condition for `eventually`: `count` streams were aborted because the client did not read."""

    async def condition() -> bool:
        logged = [record.getMessage() for record in caplog.records if record.name == "ledger.api.event_stream"]
        return logged == ["aborted an event stream: the client does not read"] * count

    return condition


async def test_streams_outlast_an_outage_which_is_logged_once(
    service: Service, outage: Outage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT_SECONDS", 0.2)
    monkeypatch.setattr(live_feed, "RETRY_SECONDS_MAX", 0.2)
    monkeypatch.setattr("ledger.log.notifications.IDLE_SECONDS_MAX", 0.1)
    monkeypatch.setattr("ledger.log.notifications.QUIET_SECONDS_MAX", 0.1)
    monkeypatch.setattr("ledger.outage.QUIET_SECONDS", 0.05)
    await service.append(cost(), cost())
    async with open_stream(service.client) as live, open_stream(service.client, last=1) as resumed:
        assert await resumed.positions(1) == [2]

        await outage(True)
        async with (
            open_stream(service.client, after=0) as behind,
            open_stream(service.client, last=1, category="job") as jobs,
        ):
            for _ in range(5):
                for stream in (live, resumed, behind, jobs):
                    await stream.heartbeat()
            async with service.client.get(PATH) as answer:
                assert (answer.status, answer.content_type) == (503, "application/problem+json")
            await outage(False)

            assert await behind.positions(2) == [1, 2]
            await eventually(lambda: appended(service, job()))
            assert await live.positions(1) == await resumed.positions(1) == await jobs.positions(1) == [3]
            assert await behind.positions(1) == [3]
            async with asyncio.timeout(10):
                while "available again" not in caplog.text:
                    await asyncio.sleep(0.01)
    logged = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(logged) == 2, logged
    assert logged[0].startswith("the database is unavailable: ")
    assert logged[1].startswith("the database is available again")


async def appended(service: Service, event: dict[str, Any]) -> bool:
    """Return whether the event could be appended; it may be sent again."""
    return (await service.post(event))[0] in (200, 201)


async def test_the_service_stops_at_once_with_open_streams(
    database: Database, database_url: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # More time than in production, so that a busy machine does not abort the streams that are read.
    monkeypatch.setattr(live_feed, "CLOSE_SECONDS", SHUTDOWN_SECONDS / 4)
    listener = listen("127.0.0.1", 0)
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{listener.getsockname()[1]}") as client,
        AsyncExitStack() as stack,
    ):
        async with AsyncExitStack() as stack_of_service:
            await stack_of_service.enter_async_context(serving(database, listener, with_worker=False))
            service = Service(client, database, database_url)
            streams = [await stack.enter_async_context(open_stream(client)) for _ in range(20)]
            deaf_one = await stack.enter_async_context(unread_stream(service))
            for _ in range(40):
                await service.append(content(content="n" * 200_000))
            for stream in streams:
                assert await stream.positions(40) == list(range(1, 41))

            # If the feed did not end its streams, aiohttp would wait for them.
            async with asyncio.timeout(SHUTDOWN_SECONDS / 2):
                await stack_of_service.aclose()

        assert [await stream.event() for stream in streams] == [None] * 20
        assert not await ended_properly(deaf_one)


async def test_the_feed_starts_over_after_the_log_was_reset(
    service: Service, windows: list[recent_events.RecentEvents], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.log.notifications.IDLE_SECONDS_MAX", 0.1)
    monkeypatch.setattr("ledger.log.notifications.QUIET_SECONDS_MAX", 0.1)
    await service.append(cost(), cost(), cost())
    async with open_stream(service.client), open_stream(service.client, after=0) as stream:
        assert await stream.positions(3) == [1, 2, 3]

        async with service.database.engine.begin() as connection:
            await connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
            await connection.exec_driver_sql("DELETE FROM ledger.events")
            await connection.exec_driver_sql("UPDATE ledger.log_head SET position = 0")

        async def started_over() -> bool:
            return [window.head for window in windows] == [3, 0]

        await eventually(started_over)
        await service.append(job())
        async with open_stream(service.client, after=0) as fresh:
            (event,) = await fresh.take(1)
    assert (event["position"], event["type"]) == (1, "job.queued")
