"""Reading the log: pages, NDJSON of a whole range, one event, one stream, a campaign's timeline."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated
from uuid import UUID

import msgspec
from aiohttp import web

from ledger.api.auth import CALLER
from ledger.api.min_position import wait_for_log
from ledger.api.parameters import Position, path_uuid, read_position, read_query
from ledger.api.routes import JSON, NDJSON, Route, json_response
from ledger.api.services import Services
from ledger.domain.access import Caller
from ledger.domain.errors import NotFound
from ledger.domain.event_type import CATEGORIES, Category
from ledger.log.read import (
    PAGE_EVENTS_MAX,
    EventFilter,
    EventView,
    read_all,
    read_head,
    read_page,
    read_stream_version,
    view,
)

logger = logging.getLogger(__name__)


class TimelineQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which events: `after` is exclusive, `until` inclusive; comma means any of."""

    after: Position = 0
    until: Position | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=PAGE_EVENTS_MAX)] = 100
    category: tuple[Category, ...] = ()
    type: tuple[str, ...] = ()
    stream_id: UUID | None = None
    agent_job_id: UUID | None = None

    def wanted(self, campaign_id: UUID | None, caller: Caller) -> EventFilter:
        """What the log is asked for, as far as the caller sees it."""
        streams = (self.stream_id,) if self.stream_id is not None else ()
        return EventFilter(
            self.after,
            self.until,
            self.category,
            self.type,
            streams,
            campaign_id,
            self.agent_job_id,
            caller.allowed_campaign_ids,
        )


class EventsQuery(TimelineQuery, kw_only=True):
    """Which events: `after` is exclusive, `until` inclusive; comma means any of."""

    campaign_id: UUID | None = None


class EventPage(msgspec.Struct):
    """`next_after` continues the page, null where there was no more; `head` is the log's last position."""

    events: list[EventView]
    next_after: int | None
    head: int


class Stream(msgspec.Struct):
    """The events of one stream, oldest first; the ETag is the version."""

    version: int
    events: list[EventView]


async def list_events(request: web.Request, services: Services) -> web.StreamResponse:
    """A page of the log, or the whole range as NDJSON."""
    query = read_query(request, EventsQuery)
    return await _answer(request, services, query.wanted(query.campaign_id, request[CALLER]), query.limit)


async def timeline(request: web.Request, services: Services) -> web.StreamResponse:
    """The events that count for a campaign."""
    query = read_query(request, TimelineQuery)
    campaign_id, caller = path_uuid(request), request[CALLER]
    wanted = query.wanted(campaign_id, caller)
    await wait_for_log(request, services)
    async with services.read_database.connection() as connection:
        known = await read_stream_version(connection, "campaign", campaign_id)
    if not known or not caller.may_see(campaign_id):
        raise NotFound(f"there is no campaign {campaign_id}")
    return await _answer(request, services, wanted, query.limit)


async def _answer(request: web.Request, services: Services, wanted: EventFilter, limit: int) -> web.StreamResponse:
    await wait_for_log(request, services, wanted.after)
    if NDJSON in request.headers.get("Accept", ""):
        return await _stream_ndjson(request, services, wanted)
    async with services.read_database.connection() as connection:
        page = await read_page(connection, wanted, limit)
        rest = msgspec.structs.replace(wanted, after=page[-1].position) if page else wanted
        following = rest.after if page and await read_page(connection, rest, 1) else None
        # Read last, so that no event shown lies beyond it.
        head = await read_head(connection)
    return json_response(EventPage([view(event) for event in page], following, head), position=head)


async def _stream_ndjson(request: web.Request, services: Services, wanted: EventFilter) -> web.StreamResponse:
    pages = read_all(services.read_database, wanted)
    # Read before the answer begins: a database that is away is still answered with a problem document.
    page = await anext(pages, None)
    answer = web.StreamResponse(headers={"Content-Type": NDJSON})
    await answer.prepare(request)
    async with whole_or_broken_off(request, answer):
        while page:
            # write() waits for the reader: a slow one holds back the next page, not memory.
            await answer.write(b"".join(msgspec.json.encode(view(event)) + b"\n" for event in page))
            page = await anext(pages, None)
    return answer


@asynccontextmanager
async def whole_or_broken_off(request: web.Request, answer: web.StreamResponse) -> AsyncIterator[None]:
    """End a streamed answer; where that fails half-way, break the connection, so that no reader takes it for whole."""
    try:
        yield
        await answer.write_eof()
    except Exception as error:  # noqa: BLE001 (the answer has begun: it can only be broken off)
        logger.warning("%s %s broke off: %s", request.method, request.path, type(error).__name__)
        if request.transport is not None:
            request.transport.abort()


async def get_event(request: web.Request, services: Services) -> web.StreamResponse:
    """One event by its position."""
    position = read_position(request.match_info["position"], "the path")
    async with services.read_database.connection() as connection:
        wanted = EventFilter(
            after=position - 1, until=position, allowed_campaign_ids=request[CALLER].allowed_campaign_ids
        )
        events = await read_page(connection, wanted, 1)
    if not events:
        raise NotFound(f"there is no event at position {position}")
    return json_response(view(events[0]))


async def get_stream(request: web.Request, services: Services) -> web.StreamResponse:
    """Every event of one stream, written page by page."""
    category, stream_id = request.match_info["category"], path_uuid(request, "stream_id")
    if category not in CATEGORIES:
        raise NotFound(f"there is no category {category!r}, only {', '.join(CATEGORIES)}")
    wanted = EventFilter(
        categories=(category,), stream_ids=(stream_id,), allowed_campaign_ids=request[CALLER].allowed_campaign_ids
    )
    await wait_for_log(request, services)
    async with services.read_database.connection() as connection:
        version = await read_stream_version(connection, category, stream_id)
        is_visible = version and await read_page(connection, wanted, 1)
    if not is_visible:
        raise NotFound(f"there is no {category} stream {stream_id}")
    etag = f'"{version}"'
    if request.headers.get("If-None-Match", "").removeprefix("W/") == etag:
        return web.Response(status=304, headers={"ETag": etag})
    answer = web.StreamResponse(headers={"Content-Type": "application/json", "ETag": etag})
    await answer.prepare(request)
    async with whole_or_broken_off(request, answer):
        await answer.write(b'{"version":%d,"events":[' % version)
        separator = b""
        async for page in read_all(services.read_database, wanted):
            events = [event for event in page if event.version <= version]
            if events:
                await answer.write(separator + b",".join(msgspec.json.encode(view(event)) for event in events))
                separator = b","
        await answer.write(b"]}")
    return answer


ROUTES = [
    Route(
        "GET",
        "/v1/events",
        list_events,
        "Read a page of the log; with Accept: application/x-ndjson the whole range, an event a line.",
        {200: EventPage},
        EventsQuery,
        problems=("malformed", "database-unavailable"),
        needs="events",
        from_replica=True,
        media=(JSON, NDJSON),
    ),
    Route(
        "GET",
        "/v1/events/{position}",
        get_event,
        "Read one event.",
        {200: EventView},
        problems=("malformed", "not-found", "database-unavailable"),
        needs="events",
        from_replica=True,
    ),
    Route(
        "GET",
        "/v1/streams/{category}/{stream_id}",
        get_stream,
        "Read one stream.",
        {200: Stream},
        problems=("malformed", "not-found", "database-unavailable"),
        needs="events",
        from_replica=True,
    ),
    Route(
        "GET",
        "/v1/campaigns/{id}/timeline",
        timeline,
        "Read the events that count for a campaign.",
        {200: EventPage},
        TimelineQuery,
        problems=("malformed", "not-found", "database-unavailable"),
        needs="events",
        from_replica=True,
        media=(JSON, NDJSON),
    ),
]
