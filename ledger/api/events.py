"""GET /v1/events, /v1/streams and timelines: pages of the log, NDJSON, one event, one stream."""

from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

import msgspec
from aiohttp import web

from ledger.api.auth import CALLER
from ledger.api.event_search import by_position, read_next
from ledger.api.heavy_reads import turn
from ledger.api.min_position import wait_for_log
from ledger.api.parameters import POSITION_MAX, Position, path_uuid, read_position, read_query
from ledger.api.routes import JSON, NDJSON, Route, always
from ledger.api.services import Services
from ledger.api.streamed_events import PAGE_CHARACTERS, PAGE_EVENTS, stream
from ledger.database import Connection
from ledger.domain.access import Caller
from ledger.domain.errors import NotFound
from ledger.domain.event_type import CATEGORIES, Category
from ledger.domain.fields import Instant
from ledger.log.event_json import JsonEvent, read_all_json, read_json_page
from ledger.log.event_view import EventView
from ledger.log.point_in_time import require_positions
from ledger.log.read import (
    EXAMINED_MAX,
    PAGE_EVENTS_MAX,
    EventFilter,
    has_more_than,
    read_head,
    read_stream_version,
)
from ledger.log.visibility import MOVABLE_CATEGORIES, may_see_stream

_SEARCHED = frozenset({"type", "actor", "correlation_id", "recorded_from", "recorded_to"})
"""Parameters that no index serves."""

LIGHT_LIMIT_DIGITS = 3
"""A page of 1,000 events or more is a heavy read."""


class TimelineQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which events of a campaign's timeline to return."""

    after: Position = 0
    until: Position | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=PAGE_EVENTS_MAX)] = 100
    category: tuple[Category, ...] = ()
    type: tuple[str, ...] = ()
    stream_id: UUID | None = None
    agent_job_id: UUID | None = None
    actor: str | None = None
    correlation_id: UUID | None = None
    recorded_from: Instant | None = None
    recorded_to: Instant | None = None

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
            actor=self.actor,
            correlation_id=self.correlation_id,
            recorded_from=self.recorded_from,
            recorded_to=self.recorded_to,
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
    version = 0
    if caller.may_see(campaign_id):
        async with services.read_database.connection() as connection:
            version = await read_stream_version(connection, "campaign", campaign_id)
    if not version:
        raise NotFound(f"there is no campaign {campaign_id}")
    return await _respond(request, services, query.event_filter(campaign_id, caller), query.limit)


async def _respond(
    request: web.Request, services: Services, event_filter: EventFilter, limit: int
) -> web.StreamResponse:
    await wait_for_log(request, services, event_filter.after)
    if _wants_ndjson(request):
        async with services.read_database.connection() as connection:
            head = await require_positions(connection, event_filter.after, event_filter.until)
            event_filter = await by_position(connection, event_filter)
        if event_filter.until is None:
            event_filter = msgspec.structs.replace(event_filter, until=head)
        pages = read_all_json(services.read_database, event_filter, PAGE_EVENTS, PAGE_CHARACTERS)
        response = web.StreamResponse(headers={"Content-Type": NDJSON})
        return await stream(request, response, _json_lines(pages))
    async with turn(request), services.read_database.connection() as connection:
        page, next_after = await read_next(connection, await by_position(connection, event_filter), limit)
        # Read last, so that no event on the page is beyond it.
        head = await require_positions(connection, event_filter.after, event_filter.until)
    events = ",".join(event.json for event in page)
    following = "null" if next_after is None else next_after
    body = f'{{"events":[{events}],"next_after":{following},"head":{head}}}'.encode()
    return web.Response(body=body, content_type=JSON, headers={"Ledger-Position": str(head)})


async def _json_lines(pages: AsyncIterator[list[JsonEvent]]) -> AsyncIterator[bytes]:
    async for page in pages:
        # Empty if a bounded part of the log has no such event.
        yield "".join(f"{event.json}\n" for event in page).encode()


async def get_event(request: web.Request, services: Services) -> web.StreamResponse:
    """Return one event by its position."""
    position = read_position(request.match_info["position"], "the path")
    async with services.read_database.connection() as connection:
        event_filter = EventFilter(
            after=position - 1, until=position, allowed_campaign_ids=request[CALLER].allowed_campaign_ids
        )
        events = await read_json_page(connection, event_filter, 1)
        if not events:
            head = await read_head(connection)
    if not events:
        end = f"; the log ends at position {head}" if position > head else ""
        raise NotFound(f"there is no event at position {position}{end}")
    return web.Response(body=events[0].json.encode(), content_type=JSON)


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
        is_visible = version and await _may_see_any_event(connection, request[CALLER], category, event_filter)
    if not is_visible:
        raise NotFound(f"there is no {category} stream {stream_id}")
    etag = f'"{version}"'
    if request.headers.get("If-None-Match", "").removeprefix("W/") == etag:
        return web.Response(status=304, headers={"ETag": etag})
    response = web.StreamResponse(headers={"Content-Type": JSON, "ETag": etag})
    pages = read_all_json(services.read_database, event_filter, PAGE_EVENTS, PAGE_CHARACTERS)
    return await stream(request, response, _stream_json(pages, version))


async def _may_see_any_event(connection: Connection, caller: Caller, category: str, stream_events: EventFilter) -> bool:
    """Whether a caller may see any event of a stream. Only streams that can move need a search."""
    if category in MOVABLE_CATEGORIES:
        return await has_more_than(connection, stream_events, 0)
    return await may_see_stream(connection, caller, category, stream_events.stream_ids[0], POSITION_MAX)


async def _stream_json(pages: AsyncIterator[list[JsonEvent]], version: int) -> AsyncIterator[bytes]:
    separator = f'{{"version":{version},"events":['
    async for page in pages:
        # Events that were appended meanwhile are left out.
        if events := [event.json for event in page if event.version <= version]:
            yield (separator + ",".join(events)).encode()
            separator = ","
    yield b"]}"


def _wants_ndjson(request: web.Request) -> bool:
    return NDJSON in request.headers.get("Accept", "")


def _is_heavy(request: web.Request) -> bool:
    """Whether a page is large, or has to be searched for."""
    is_large = len(request.query.get("limit", "")) > LIGHT_LIMIT_DIGITS
    return is_large or not request.query.keys().isdisjoint(_SEARCHED) or _wants_ndjson(request)


_SEARCH = (
    "A request with `actor` or `correlation_id`, and without a stream, campaign or job, examines at most "
    f"{EXAMINED_MAX:,} events; `next_after` is where to continue, also if no event was found. "
)
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
        problems=("malformed", "overloaded", "database-unavailable"),
        needs="events",
        from_replica=True,
        is_heavy=_is_heavy,
        description=_SEARCH + _AS_NDJSON,
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
        problems=("malformed", "not-found", "overloaded", "database-unavailable"),
        needs="events",
        from_replica=True,
        is_heavy=always,
        description="The `ETag` is the version of the stream; with `If-None-Match` an unchanged stream is 304.",
    ),
    Route(
        "GET",
        "/v1/campaigns/{id}/timeline",
        get_timeline,
        "Read the events of a campaign and of its jobs, costs and assets.",
        {200: EventPage},
        TimelineQuery,
        problems=("malformed", "not-found", "overloaded", "database-unavailable"),
        needs="events",
        from_replica=True,
        is_heavy=_is_heavy,
        description=_AS_NDJSON,
        media=(JSON, NDJSON),
    ),
]
