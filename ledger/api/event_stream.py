"""GET /v1/events/stream: the log as Server-Sent Events (SSE); heartbeats, resumption by Last-Event-ID."""

import asyncio
import logging
import secrets
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any
from uuid import UUID

import msgspec
from aiohttp import web

from ledger.api.auth import CALLER
from ledger.api.live_feed import LiveFeed
from ledger.api.parameters import Position, read_header, read_position, read_query
from ledger.api.recent_events import Chunk
from ledger.api.revocation import while_authorized
from ledger.api.routes import EVENT_STREAM, Route
from ledger.api.services import Services
from ledger.domain.errors import Unauthenticated
from ledger.domain.event_type import Category
from ledger.domain.fields import Instant
from ledger.log.event_view import EventView
from ledger.log.read import EventFilter

logger = logging.getLogger(__name__)

HEARTBEAT = b": \n\n"
HEARTBEAT_SECONDS = 15.0
"""A comment is sent after this time without an event: proxies keep the connection, and a lost client is noticed."""

WRITE_BYTES = 64 * 1024
WRITE_SECONDS_MAX = 30.0
"""Timeout for a write of this many bytes; a client that reads more slowly is disconnected."""

UNSENT_BYTES_MAX = 8 * 1024
"""Events left in the buffer of a connection after a write; further events wait in memory charged to the key."""

CHUNK_BYTES_MAX = 256 * 1024
"""Memory taken before a chunk is read. For a larger event the chunk is read again when there is memory for it."""

RETRY_MILLISECONDS_MIN = 1_000
RETRY_MILLISECONDS_MAX = 3_000
"""Each client gets a random reconnection delay, so that not all reconnect at once after a restart."""

HEADERS = {"Content-Type": EVENT_STREAM, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class FeedQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which events to stream, and after which position."""

    after: Position | None = None
    category: tuple[Category, ...] = ()
    type: tuple[str, ...] = ()
    stream_id: UUID | None = None
    campaign_id: UUID | None = None
    agent_job_id: UUID | None = None
    actor: str | None = None
    correlation_id: UUID | None = None
    recorded_from: Instant | None = None
    recorded_to: Instant | None = None

    def event_filter(self, after: int, allowed_campaign_ids: frozenset[UUID] | None) -> EventFilter:
        """Return the filter for events after a position that the caller may see."""
        streams = (self.stream_id,) if self.stream_id is not None else ()
        return EventFilter(
            after,
            None,
            self.category,
            self.type,
            streams,
            self.campaign_id,
            self.agent_job_id,
            allowed_campaign_ids,
            actor=self.actor,
            correlation_id=self.correlation_id,
            recorded_from=self.recorded_from,
            recorded_to=self.recorded_to,
        )


class EventStream:
    """One client's response: writes the events as fast as the client reads them."""

    def __init__(
        self,
        feed: LiveFeed,
        request: web.Request,
        response: web.StreamResponse,
        event_filter: EventFilter,
        resets: int,
    ) -> None:
        """Make a stream.

        Args:
            feed: the source of events.
            request: the request of the client.
            response: the prepared response.
            event_filter: the events to write, and the position after which to start.
            resets: `resets` of the feed before this position was checked.
        """
        self._feed = feed
        self._key = request[CALLER].name
        self._response = response
        self._writer = request.writer
        self._filter = event_filter
        self._resets = resets
        self._clock = asyncio.get_running_loop().time
        self._written_at = self._clock()
        if request.transport is not None:
            request.transport.set_write_buffer_limits(high=UNSENT_BYTES_MAX)

    async def run(self) -> None:
        """Write every matching event until the feed is closed or the log was reset.

        Raises:
            ConnectionError: the client has disconnected.
            TimeoutError: the client does not read.
        """
        position = self._filter.after
        # The id is for a browser that loses its connection before the first event: it resumes from here as well.
        retry = RETRY_MILLISECONDS_MIN + secrets.randbelow(RETRY_MILLISECONDS_MAX - RETRY_MILLISECONDS_MIN)
        await self._write(b"retry: %d\nid: %d\n\n" % (retry, position))
        while not self._feed.closed and self._feed.resets == self._resets:
            # Read before the check below, so that no notification is missed between the check and the wait.
            seen = self._feed.updated.generation
            position = await self._write_next(position)
            if self._seconds_to_heartbeat() <= 0:
                await self._write(HEARTBEAT)
            if self._feed.has_events_after(position):
                # write() never waits for a client that reads fast: let other tasks run.
                await asyncio.sleep(0)
            else:
                await self._feed.updated.wait(seen, self._seconds_to_heartbeat())

    async def _write_next(self, after: int) -> int:
        """Write the next events after a position, if there are any; return the position up to which they reach."""
        size = CHUNK_BYTES_MAX
        while True:
            await self._take_memory(size)
            try:
                chunk = self._feed.next_chunk(self._filter, after)
                if chunk is None:
                    chunk = await self._send_heartbeats_during(self._feed.catch_up(self._filter, after, self._key))
                if len(chunk.frames) <= size:
                    await self._write(chunk.frames)
                    return chunk.position
            finally:
                self._feed.memory.give_back(self._key, size)
            size = len(chunk.frames)
            del chunk

    async def _take_memory(self, size: int) -> None:
        """Take memory for a chunk; wait while slow readers with the same key have its share."""
        while not self._feed.memory.try_take(self._key, size):
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._seconds_to_heartbeat())):
                    await self._feed.memory.take(self._key, size)
                    return
            await self._write(HEARTBEAT)

    async def _send_heartbeats_during(self, reading: Coroutine[Any, Any, Chunk]) -> Chunk:
        """Send heartbeats while the log is read, which may take long during an outage."""
        task = asyncio.create_task(reading)
        try:
            while not (await asyncio.wait({task}, timeout=max(0.0, self._seconds_to_heartbeat())))[0]:
                await self._write(HEARTBEAT)
            return task.result()
        finally:
            task.cancel()

    def _seconds_to_heartbeat(self) -> float:
        return self._written_at + HEARTBEAT_SECONDS - self._clock()

    async def _write(self, frames: bytes) -> None:
        rest = memoryview(frames)
        while rest:
            async with asyncio.timeout(WRITE_SECONDS_MAX):
                await self._response.write(rest[:WRITE_BYTES])
                await self._writer.drain()
            rest = rest[WRITE_BYTES:]
            self._written_at = self._clock()


async def stream_events(request: web.Request, services: Services) -> web.StreamResponse:
    """Stream events until the client disconnects, the key is revoked, or the service shuts down."""
    query = read_query(request, FeedQuery)
    after = query.after
    # A browser that reconnects sends both: the URL it was given, and the last position it received.
    if (last := read_header(request, "Last-Event-ID")) is not None:
        after = read_position(last, "the header Last-Event-ID")
    key = request[CALLER].name
    with services.feed.admit(key):
        # Read before the position is checked: a reset after the check must end the stream.
        resets = services.feed.resets
        if after is None:
            after = await services.feed.read_head(key)
        else:
            await services.feed.require_position(after, key)
        event_filter = query.event_filter(after, request[CALLER].allowed_campaign_ids)
        return await _respond(request, services, event_filter, resets)


async def _respond(
    request: web.Request, services: Services, event_filter: EventFilter, resets: int
) -> web.StreamResponse:
    response = web.StreamResponse(headers=HEADERS)
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    try:
        async with services.feed.subscribe():
            with suppress(Unauthenticated):
                async with while_authorized(request):
                    await EventStream(services.feed, request, response, event_filter, resets).run()
            await response.write_eof()
    except ConnectionError:
        logger.debug("an event stream's client has disconnected")
    except Exception as error:  # noqa: BLE001 (the response has begun: it can only be aborted)
        reason = "the client does not read" if isinstance(error, TimeoutError) else repr(error)
        logger.warning("aborted an event stream: %s", reason)
        if request.transport is not None:
            request.transport.abort()
    return response


ROUTES = [
    Route(
        "GET",
        "/v1/events/stream",
        stream_events,
        "Follow the log live.",
        {200: EventView},
        FeedQuery,
        problems=("malformed", "overloaded", "database-unavailable"),
        headers=("Last-Event-ID",),
        media=(EVENT_STREAM,),
        needs="events",
        description="Server-Sent Events: first the events after `Last-Event-ID` or `after`, then new ones as they are "
        f"appended. Without both, only new ones. A comment is sent every {HEARTBEAT_SECONDS:.0f} s without an event.",
    )
]
