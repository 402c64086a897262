"""Read the log: pages of events in order of position, at most 5,000 events and 8 MiB each.

Positions have no gaps and become visible in order, so a reader only needs to remember its last position.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Protocol, Self, TypeVar
from uuid import UUID

import msgspec

from ledger.database import Connection, Database
from ledger.database.singleton import HEAD_TABLE, require_row

PAGE_EVENTS_MAX = 5_000
PAGE_CHARACTERS_MAX = 8 * 1024 * 1024
"""The most data and text in a page of more than one event: bounds the memory of a reader."""

EXAMINED_MAX = 50_000
"""The most events that one statement examines if no index leads to those that are selected."""

_COLUMNS = """position, category, stream_id, version, id, type, schema_version, occurred_at, recorded_at, actor,
    campaign_id, agent_job_id, correlation_id, causation_id, data::text AS data, text::text AS text, text_commitment"""

_SALTED_COLUMNS = f"{_COLUMNS}, text_salt"

HEAD = "SELECT position FROM ledger.log_head"

STREAM_VERSION = "SELECT max(version) FROM ledger.events WHERE category = $1 AND stream_id = $2"


class StoredEvent(msgspec.Struct, frozen=True, gc=False):
    """An event as stored in the log; `data` and `text` are the stored JSON texts."""

    position: int
    category: str
    stream_id: UUID
    version: int
    id: UUID
    type: str
    schema_version: int
    occurred_at: datetime
    recorded_at: datetime
    actor: str
    campaign_id: UUID | None
    agent_job_id: UUID | None
    correlation_id: UUID | None
    causation_id: UUID | None
    data: str
    text: str | None
    text_commitment: str | None


class SaltedEvent(StoredEvent, frozen=True):
    """A stored event with the salt of its free text, which is needed to verify the text against its commitment."""

    text_salt: bytes | None


class HasPosition(Protocol):
    """An element of a page: an event in any form, with its position."""

    @property
    def position(self) -> int: ...


E = TypeVar("E", bound=HasPosition)

ReadPage = Callable[[Connection, "EventFilter", int, int | None], Awaitable[list[E]]]


class EventFilter(msgspec.Struct, frozen=True):
    """Selects events; a field that is None or empty selects all. Of positions, `after` is exclusive, `until` inclusive.

    Of times, `recorded_from` is inclusive, `recorded_to` exclusive.
    `allowed_campaign_ids` selects events attributed to one of these campaigns: none if it is empty, all if None.
    """

    after: int = 0
    until: int | None = None
    categories: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    stream_ids: tuple[UUID, ...] = ()
    campaign_id: UUID | None = None
    agent_job_id: UUID | None = None
    allowed_campaign_ids: frozenset[UUID] | None = None
    agent_job_ids: tuple[UUID, ...] = ()
    actor: str | None = None
    correlation_id: UUID | None = None
    recorded_from: datetime | None = None
    recorded_to: datetime | None = None

    @property
    def is_search(self) -> bool:
        """Whether no index leads to the selected events: a read has to examine the log event by event."""
        conditions = (self.actor, self.correlation_id, self.recorded_from, self.recorded_to)
        has_condition = any(condition is not None for condition in conditions)
        return has_condition and not self.stream_ids and self.campaign_id is None and self.agent_job_id is None

    def window(self, head: int) -> Self:
        """Return the first part of the selection, which ends at the head, and if it is a search, is bounded."""
        until = head if self.until is None else min(self.until, head)
        return msgspec.structs.replace(self, until=min(until, self.after + EXAMINED_MAX) if self.is_search else until)

    def matches(self, event: StoredEvent) -> bool:
        """Whether the filter selects an event at any position, by the same conditions as `read_page`."""
        return (
            (not self.categories or event.category in self.categories)
            and (not self.types or event.type in self.types)
            and (not self.stream_ids or event.stream_id in self.stream_ids)
            and (self.campaign_id is None or event.campaign_id == self.campaign_id)
            and (self.agent_job_id is None or event.agent_job_id == self.agent_job_id)
            and (not self.agent_job_ids or event.agent_job_id in self.agent_job_ids)
            and (self.allowed_campaign_ids is None or event.campaign_id in self.allowed_campaign_ids)
            and (self.actor is None or event.actor == self.actor)
            and (self.correlation_id is None or event.correlation_id == self.correlation_id)
            and (self.recorded_from is None or event.recorded_at >= self.recorded_from)
            and (self.recorded_to is None or event.recorded_at < self.recorded_to)
        )


def _conditions(selection: EventFilter) -> tuple[str, list[object]]:
    """Return the condition of a filter and its arguments."""
    arguments: list[object] = [selection.after]
    conditions = ["position > $1"]

    def narrow(condition: str, value: object) -> None:
        arguments.append(value)
        conditions.append(condition.format(f"${len(arguments)}"))

    if selection.until is not None:
        narrow("position <= {}", selection.until)
    if selection.categories:
        narrow("category = ANY ({}::text[])", list(selection.categories))
    if selection.types:
        narrow("type = ANY ({}::text[])", list(selection.types))
    if selection.stream_ids:
        narrow("stream_id = ANY ({}::uuid[])", list(selection.stream_ids))
    if selection.campaign_id is not None:
        narrow("campaign_id = {}", selection.campaign_id)
    if selection.agent_job_id is not None:
        narrow("agent_job_id = {}", selection.agent_job_id)
    if selection.agent_job_ids:
        narrow("agent_job_id = ANY ({}::uuid[])", list(selection.agent_job_ids))
    if selection.actor is not None:
        narrow("actor = {}", selection.actor)
    if selection.correlation_id is not None:
        narrow("correlation_id = {}", selection.correlation_id)
    if selection.recorded_from is not None:
        narrow("recorded_at >= {}", selection.recorded_from)
    if selection.recorded_to is not None:
        narrow("recorded_at < {}", selection.recorded_to)
    allowed = selection.allowed_campaign_ids
    if allowed is not None and selection.campaign_id is None:
        narrow("campaign_id = ANY ({}::uuid[])", list(allowed))
    elif allowed is not None and selection.campaign_id not in allowed:
        # No events are read, not even to count them: the response time would reveal their number.
        conditions.append("false")
    return " AND ".join(conditions), arguments


def page_query(columns: str, selection: EventFilter, limit: int, characters_max: int) -> tuple[str, list[object]]:
    """Return the query of a page, and its arguments; see `read_page`."""
    condition, arguments = _conditions(selection)
    arguments += [limit, characters_max]
    # The window function sums `size` alone, so texts beyond the limit are never read from disk.
    query = f"""
        SELECT {columns} FROM (
            SELECT *, sum(size) OVER (ORDER BY position) AS running FROM ledger.events
            WHERE {condition}
            ORDER BY position LIMIT ${len(arguments) - 1}
        ) AS page
        WHERE running <= ${len(arguments)} OR running = size
        ORDER BY position
    """  # noqa: S608 (the conditions are constants)
    return query, arguments


async def has_more_than(connection: Connection, selection: EventFilter, events: int) -> bool:
    """Whether a filter selects more than this many events."""
    condition, arguments = _conditions(selection)
    query = f"SELECT EXISTS (SELECT FROM ledger.events WHERE {condition} OFFSET {events:d})"  # noqa: S608
    return bool(await connection.fetchval(query, *arguments))


async def read_page(
    connection: Connection,
    selection: EventFilter,
    limit: int = PAGE_EVENTS_MAX,
    characters_max: int | None = None,
) -> list[StoredEvent]:
    """Read the next page of events.

    Args:
        connection: a connection to the database of the log.
        selection: the events to read.
        limit: the most events.
        characters_max: the most characters of data and text if there is more than one event; `PAGE_CHARACTERS_MAX`
            when None.

    Returns:
        the events in order of position; empty only if no further event matches.
    """
    query, arguments = page_query(_COLUMNS, selection, limit, characters_max or PAGE_CHARACTERS_MAX)
    return [StoredEvent(*row) for row in await connection.fetch(query, *arguments)]


async def read_salted_page(
    connection: Connection,
    selection: EventFilter,
    limit: int = PAGE_EVENTS_MAX,
    characters_max: int | None = None,
) -> list[SaltedEvent]:
    """Read the next page of events with their salts, which only auditors may see: a salt makes its text guessable.

    Args:
        connection: a connection to the database of the log.
        selection: the events to read.
        limit: the most events.
        characters_max: as for `read_page`.

    Returns:
        the events in order of position; empty only if no further event matches.
    """
    query, arguments = page_query(_SALTED_COLUMNS, selection, limit, characters_max or PAGE_CHARACTERS_MAX)
    return [SaltedEvent(*row) for row in await connection.fetch(query, *arguments)]


async def read_head(connection: Connection) -> int:
    """Return the position of the last event; 0 if the log is empty."""
    return int(require_row(await connection.fetchval(HEAD), HEAD_TABLE))


async def read_stream_version(connection: Connection, category: str, stream_id: UUID) -> int:
    """Return the version of a stream.

    Args:
        connection: a connection to the database of the log.
        category: the category of the stream.
        stream_id: the id of the stream.

    Returns:
        the version of its last event; 0 if the stream does not exist.
    """
    version = await connection.fetchval(STREAM_VERSION, category, stream_id)
    return int(version or 0)


def read_all(
    database: Database, selection: EventFilter, page_events_max: int = PAGE_EVENTS_MAX
) -> AsyncIterator[list[StoredEvent]]:
    """Read all selected events page by page, each page in a separate short transaction.

    Args:
        database: the database of the log.
        selection: the events to read. If `until` is None, reading ends at the head of the log as it was at the start,
            so that ongoing appends do not prolong it.
        page_events_max: the most events in a page.

    Yields:
        pages of events in order of position; none is empty, unless the selection is a search.
    """
    return read_pages(database, selection, (page_events_max, None), read_page)


def read_all_salted(
    database: Database,
    selection: EventFilter,
    page_events_max: int = PAGE_EVENTS_MAX,
    page_characters_max: int | None = None,
) -> AsyncIterator[list[SaltedEvent]]:
    """Read all selected events with their salts, page by page; see `read_all` and `read_salted_page`."""
    return read_pages(database, selection, (page_events_max, page_characters_max), read_salted_page)


async def read_pages(
    database: Database, selection: EventFilter, page_size_max: tuple[int, int | None], read: "ReadPage[E]"
) -> AsyncIterator[list[E]]:
    """Read all selected events with `read`, page by page; `page_size_max` is in events and characters."""
    if selection.until is None:
        async with database.connection() as connection:
            selection = msgspec.structs.replace(selection, until=await read_head(connection))
    end = selection.until
    assert end is not None
    while True:
        window = selection.window(end)
        async with database.connection() as connection:
            page = await read(connection, window, *page_size_max)
        is_complete = window.until == end
        if not page and is_complete:
            return
        yield page
        reached = page[-1].position if page else window.until
        selection = msgspec.structs.replace(selection, after=reached)
