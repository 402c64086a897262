"""GET /v1/events, /v1/streams and timelines: pages of the log, NDJSON, one event, one stream."""

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
    """Which events of a campaign's timeline to return."""

    after: Position = 0
    until: Position | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=PAGE_EVENTS_MAX)] = 100
    category: tuple[Category, ...] = ()
    type: tuple[str, ...] = ()
    stream_id: UUID | None = None
    agent_job_id: UUID | None = None

    def event_filter(self, campaign_id: UUID | None, caller: Caller) -> EventFilter:
        """Return the filter for the events that the caller may see."""
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
    """Which events of the log to return."""

    campaign_id: UUID | None = None


class EventPage(msgspec.Struct):
    """A page of events."""

    events: list[EventView]
    next_after: int | None
    head: int


class Stream(msgspec.Struct):
    """All events of one stream."""

    version: int
    events: list[EventView]


async def list_events(request: web.Request, services: Services) -> web.StreamResponse:
    """Return a page of the log, or the whole range as NDJSON."""
    query = read_query(request, EventsQuery)
    event_filter = query.event_filter(query.campaign_id, request[CALLER])
    return await _respond(request, services, event_filter, query.limit)


async def get_timeline(request: web.Request, services: Services) -> web.StreamResponse:
    """Return the events of a campaign and of its jobs, costs and assets."""
    query = read_query(request, TimelineQuery)
    campaign_id, caller = path_uuid(request), request[CALLER]
    await wait_for_log(request, services)
    async with services.read_database.connection() as connection:
        version = await read_stream_version(connection, "campaign", campaign_id)
    if not version or not caller.may_see(campaign_id):
        raise NotFound(f"there is no campaign {campaign_id}")
    return await _respond(request, services, query.event_filter(campaign_id, caller), query.limit)


async def _respond(
    request: web.Request, services: Services, event_filter: EventFilter, limit: int
) -> web.StreamResponse:
    await wait_for_log(request, services, event_filter.after)
    if NDJSON in request.headers.get("Accept", ""):
        return await _stream_ndjson(request, services, event_filter)
    async with services.read_database.connection() as connection:
        page = await read_page(connection, event_filter, limit)
        rest = msgspec.structs.replace(event_filter, after=page[-1].position) if page else event_filter
        next_after = rest.after if page and await read_page(connection, rest, 1) else None
        # Read last, so that no event on the page is beyond it.
        head = await read_head(connection)
    return json_response(EventPage([view(event) for event in page], next_after, head), position=head)


async def _stream_ndjson(request: web.Request, services: Services, event_filter: EventFilter) -> web.StreamResponse:
    pages = read_all(services.read_database, event_filter)
    # Read before the response begins, so that an outage of the database is still a problem document.
    page = await anext(pages, None)
    response = web.StreamResponse(headers={"Content-Type": NDJSON})
    await response.prepare(request)
    async with complete_or_abort(request, response):
        while page:
            # write() waits for a slow reader: only one page is in memory.
            await response.write(b"".join(msgspec.json.encode(view(event)) + b"\n" for event in page))
            page = await anext(pages, None)
    return response


@asynccontextmanager
async def complete_or_abort(request: web.Request, response: web.StreamResponse) -> AsyncIterator[None]:
    """End a streamed response; if it fails midway, abort the connection, so that no client takes it for complete."""
    try:
        yield
        await response.write_eof()
    except Exception as error:  # noqa: BLE001 (the response has begun: it can only be aborted)
        logger.warning("%s %s was aborted: %s", request.method, request.path, type(error).__name__)
        if request.transport is not None:
            request.transport.abort()


async def get_event(request: web.Request, services: Services) -> web.StreamResponse:
    """Return one event by its position."""
    position = read_position(request.match_info["position"], "the path")
    async with services.read_database.connection() as connection:
        event_filter = EventFilter(
            after=position - 1, until=position, allowed_campaign_ids=request[CALLER].allowed_campaign_ids
        )
        events = await read_page(connection, event_filter, 1)
    if not events:
        raise NotFound(f"there is no event at position {position}")
    return json_response(view(events[0]))


async def get_stream(request: web.Request, services: Services) -> web.StreamResponse:
    """Return every event of one stream, written page by page."""
    category, stream_id = request.match_info["category"], path_uuid(request, "stream_id")
    if category not in CATEGORIES:
        raise NotFound(f"there is no category {category!r}; the categories are {', '.join(CATEGORIES)}")
    event_filter = EventFilter(
        categories=(category,), stream_ids=(stream_id,), allowed_campaign_ids=request[CALLER].allowed_campaign_ids
    )
    await wait_for_log(request, services)
    async with services.read_database.connection() as connection:
        version = await read_stream_version(connection, category, stream_id)
        is_visible = version and await read_page(connection, event_filter, 1)
    if not is_visible:
        raise NotFound(f"there is no {category} stream {stream_id}")
    etag = f'"{version}"'
    if request.headers.get("If-None-Match", "").removeprefix("W/") == etag:
        return web.Response(status=304, headers={"ETag": etag})
    response = web.StreamResponse(headers={"Content-Type": "application/json", "ETag": etag})
    await response.prepare(request)
    async with complete_or_abort(request, response):
        await response.write(b'{"version":%d,"events":[' % version)
        separator = b""
        async for page in read_all(services.read_database, event_filter):
            events = [event for event in page if event.version <= version]
            if events:
                await response.write(separator + b",".join(msgspec.json.encode(view(event)) for event in events))
                separator = b","
        await response.write(b"]}")
    return response


_AS_NDJSON = (
    "With `Accept: application/x-ndjson`, the whole range is streamed, one event per line; `limit` does not apply."
)

ROUTES = [
    Route(
        "GET",
        "/v1/events",
        list_events,
        "Read the log.",
        {200: EventPage},
        EventsQuery,
        problems=("malformed", "database-unavailable"),
        needs="events",
        from_replica=True,
        description=_AS_NDJSON,
        media=(JSON, NDJSON),
    ),
    Route(
        "GET",
        "/v1/events/{position}",
        get_event,
        "Read one event by its position.",
        {200: EventView},
        problems=("malformed", "not-found", "database-unavailable"),
        needs="events",
        from_replica=True,
    ),
    Route(
        "GET",
        "/v1/streams/{category}/{stream_id}",
        get_stream,
        "Read all events of one stream.",
        {200: Stream},
        problems=("malformed", "not-found", "database-unavailable"),
        needs="events",
        from_replica=True,
        description="The `ETag` is the version of the stream; with `If-None-Match` an unchanged stream is 304.",
    ),
    Route(
        "GET",
        "/v1/campaigns/{id}/timeline",
        get_timeline,
        "Read the events of a campaign and of its jobs, costs and assets.",
        {200: EventPage},
        TimelineQuery,
        problems=("malformed", "not-found", "database-unavailable"),
        needs="events",
        from_replica=True,
        description=_AS_NDJSON,
        media=(JSON, NDJSON),
    ),
]
