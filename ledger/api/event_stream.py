"""GET /v1/events/stream: the log as Server-Sent Events, one coroutine a listener, at its own pace."""

import asyncio
import logging
import secrets
from collections.abc import Coroutine
from typing import Any
from uuid import UUID

import msgspec
from aiohttp import web

from ledger.api.auth import CALLER, authenticate
from ledger.api.live_feed import LiveFeed
from ledger.api.parameters import Position, read_position, read_query
from ledger.api.recent_events import Part
from ledger.api.routes import EVENT_STREAM, Route
from ledger.api.services import Services
from ledger.domain.errors import Forbidden, Unauthenticated
from ledger.domain.event_type import Category
from ledger.log.read import EventFilter, EventView

logger = logging.getLogger(__name__)

HEARTBEAT = b": \n\n"
HEARTBEAT_SECONDS = 15.0
"""After so long without an event comes a comment: proxies keep the connection, and who has gone is noticed."""

RECHECK_SECONDS = 1.5
"""An open feed looks so often whether its key is still good: with the key ring's own delay, within five seconds."""

WRITE_BYTES = 64 * 1024
WRITE_SECONDS_MAX = 30.0
"""Who does not take so much in so long is dropped."""

RETRY_MILLISECONDS_MIN = 1_000
RETRY_MILLISECONDS_MAX = 3_000
"""Each is told another pause before it reconnects: after a restart they do not all come at once."""

HEADERS = {"Content-Type": EVENT_STREAM, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class FeedQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which events, and after which position; comma means any of."""

    after: Position | None = None
    category: tuple[Category, ...] = ()
    type: tuple[str, ...] = ()
    stream_id: UUID | None = None
    campaign_id: UUID | None = None
    agent_job_id: UUID | None = None


class Listener:
    """One client's way through the log."""

    def __init__(self, feed: LiveFeed, answer: web.StreamResponse, wanted: EventFilter) -> None:
        self._feed = feed
        self._answer = answer
        self._wanted = wanted
        self._clock = asyncio.get_running_loop().time
        self._written = self._clock()

    async def follow(self) -> None:
        """Write every event wanted until the feed is closed.

        Raises:
            ConnectionError: the client has gone.
            TimeoutError: the client does not read.
        """
        position = self._wanted.after
        # The id is for a browser that loses its connection before the first event: it resumes from here too.
        retry = RETRY_MILLISECONDS_MIN + secrets.randbelow(RETRY_MILLISECONDS_MAX - RETRY_MILLISECONDS_MIN)
        await self._write(b"retry: %d\nid: %d\n\n" % (retry, position))
        while not self._feed.closed:
            # Taken before looking, so that nothing that comes meanwhile is slept through.
            seen = self._feed.news.generation
            part = self._feed.recent(self._wanted, position)
            if part is None:
                part = await self._alive_during(self._feed.catch_up(self._wanted, position))
            position = part.position
            if part.frames:
                await self._write(part.frames)
            elif self._heartbeat_in() <= 0:
                await self._write(HEARTBEAT)
            if self._feed.is_ahead_of(position):
                # A client that reads fast never makes write() wait: let the others have their turn.
                await asyncio.sleep(0)
            else:
                await self._feed.news.wait(seen, self._heartbeat_in())

    async def _alive_during(self, reading: Coroutine[Any, Any, Part]) -> Part:
        """Go on with heartbeats while the log is read, which in an outage may take long."""
        task = asyncio.create_task(reading)
        try:
            while not (await asyncio.wait({task}, timeout=max(0.0, self._heartbeat_in())))[0]:
                await self._write(HEARTBEAT)
            return task.result()
        finally:
            task.cancel()

    def _heartbeat_in(self) -> float:
        return self._written + HEARTBEAT_SECONDS - self._clock()

    async def _write(self, frames: bytes) -> None:
        rest = memoryview(frames)
        while rest:
            async with asyncio.timeout(WRITE_SECONDS_MAX):
                await self._answer.write(rest[:WRITE_BYTES])
            rest = rest[WRITE_BYTES:]
        self._written = self._clock()


async def listen(request: web.Request, services: Services) -> web.StreamResponse:
    """Follow the log from where the client left off, or from its head."""
    query = read_query(request, FeedQuery)
    after = query.after
    # A browser that reconnects sends both: the address it was given at first, and how far it has come since.
    if (last := request.headers.get("Last-Event-ID")) is not None:
        after = read_position(last, "the header Last-Event-ID")
    if after is None:
        after = await services.feed.log_head()
    streams = (query.stream_id,) if query.stream_id is not None else ()
    allowed_campaign_ids = request[CALLER].allowed_campaign_ids
    wanted = EventFilter(
        after, None, query.category, query.type, streams, query.campaign_id, query.agent_job_id, allowed_campaign_ids
    )
    answer = web.StreamResponse(headers=HEADERS)
    await answer.prepare(request)
    try:
        async with services.feed.listening():
            following = asyncio.ensure_future(Listener(services.feed, answer, wanted).follow())
            revoked = asyncio.ensure_future(_until_revoked(request, services))
            try:
                await asyncio.wait((following, revoked), return_when=asyncio.FIRST_COMPLETED)
                if following.done():
                    following.result()
            finally:
                following.cancel()
                revoked.cancel()
            await answer.write_eof()
    except ConnectionError:
        logger.debug("a listener has gone")
    except Exception as error:  # noqa: BLE001 (the answer has begun: it can only be broken off)
        logger.warning(
            "a listener was dropped: %s", "it did not read" if isinstance(error, TimeoutError) else repr(error)
        )
        if request.transport is not None:
            request.transport.abort()
    return answer


async def _until_revoked(request: web.Request, services: Services) -> None:
    """Return once the key that the feed was opened with is no longer good."""
    while True:
        await asyncio.sleep(RECHECK_SECONDS)
        try:
            await authenticate(request, services, "events")
        except (Unauthenticated, Forbidden):
            return
        except Exception as error:  # noqa: BLE001 (an outage ends no feed)
            logger.debug("a listener's key could not be looked up: %s", type(error).__name__)


ROUTES = [
    Route(
        "GET",
        "/v1/events/stream",
        listen,
        "Listen to the log: Server-Sent Events from Last-Event-ID, else from after, else from now on.",
        {200: EventView},
        FeedQuery,
        problems=("malformed", "database-unavailable"),
        headers=("Last-Event-ID",),
        media=(EVENT_STREAM,),
        needs="events",
    )
]
