"""Reading the log: pages of events in the order of their positions, bounded in number and in size.

Positions have no gaps and become visible in order, so a reader needs only the last position it has seen.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

import msgspec

from ledger.database import Connection, Database
from ledger.domain.codec import merge, time_text

if TYPE_CHECKING:
    pass

PAGE_EVENTS_MAX = 5_000
PAGE_CHARACTERS_MAX = 8 * 1024 * 1024
"""A page ends before this much data and text, but holds at least one event: it bounds a reader's memory."""

_COLUMNS = """position, category, stream_id, version, id, type, schema_version, occurred_at, recorded_at, actor,
    campaign_id, agent_job_id, correlation_id, causation_id, data::text AS data, text::text AS text, text_commitment"""

_SALTED_COLUMNS = f"{_COLUMNS}, text_salt"

HEAD = "SELECT position FROM ledger.log_head"

STREAM_VERSION = """
SELECT max(version) FROM ledger.events WHERE category = $1 AND stream_id = $2
"""


class StoredEvent(msgspec.Struct, frozen=True, gc=False):
    """An event as the log holds it; `data` and `text` are the stored bytes as text."""

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
    """An event with the salt of its free text, without which nobody can check the text against its commitment."""

    text_salt: bytes | None


E = TypeVar("E", bound=StoredEvent)

_ReadPage = Callable[[Connection, "EventFilter", int], Awaitable[list[E]]]


class EventView(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event as it is shown: data and free text are one object again."""

    position: int
    category: str
    stream_id: UUID
    version: int
    id: UUID
    type: str
    schema_version: int
    occurred_at: str
    recorded_at: str
    actor: str
    campaign_id: UUID | None
    agent_job_id: UUID | None
    data: msgspec.Raw
    correlation_id: UUID | None = None
    causation_id: UUID | None = None
    erased: bool = False


class EventFilter(msgspec.Struct, frozen=True):
    """Which events are wanted; what is None or empty does not narrow. `after` is exclusive, `until` inclusive.

    `allowed_campaign_ids`: only events that count for one of these campaigns; empty, none does.
    """

    after: int = 0
    until: int | None = None
    categories: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    stream_ids: tuple[UUID, ...] = ()
    campaign_id: UUID | None = None
    agent_job_id: UUID | None = None
    allowed_campaign_ids: frozenset[UUID] | None = None

    def wants(self, event: StoredEvent) -> bool:
        """Whether an event passes, wherever in the log it stands: the same that `read_page` asks of the database."""
        return (
            (not self.categories or event.category in self.categories)
            and (not self.types or event.type in self.types)
            and (not self.stream_ids or event.stream_id in self.stream_ids)
            and (self.campaign_id is None or event.campaign_id == self.campaign_id)
            and (self.agent_job_id is None or event.agent_job_id == self.agent_job_id)
            and (self.allowed_campaign_ids is None or event.campaign_id in self.allowed_campaign_ids)
        )


def view(event: StoredEvent) -> EventView:
    """Show a stored event."""
    free_text = event.text.encode() if event.text is not None else None
    return EventView(
        position=event.position,
        category=event.category,
        stream_id=event.stream_id,
        version=event.version,
        id=event.id,
        type=event.type,
        schema_version=event.schema_version,
        occurred_at=time_text(event.occurred_at),
        recorded_at=time_text(event.recorded_at),
        actor=event.actor,
        campaign_id=event.campaign_id,
        agent_job_id=event.agent_job_id,
        data=msgspec.Raw(merge(event.data.encode(), free_text)),
        correlation_id=event.correlation_id,
        causation_id=event.causation_id,
        erased=event.text_commitment is not None and event.text is None,
    )


def _page_query(columns: str, wanted: EventFilter, limit: int, characters: int) -> tuple[str, list[object]]:
    arguments: list[object] = [wanted.after]
    conditions = ["position > $1"]

    def narrow(condition: str, value: object) -> None:
        arguments.append(value)
        conditions.append(condition.format(f"${len(arguments)}"))

    if wanted.until is not None:
        narrow("position <= {}", wanted.until)
    if wanted.categories:
        narrow("category = ANY ({}::text[])", list(wanted.categories))
    if wanted.types:
        narrow("type = ANY ({}::text[])", list(wanted.types))
    if wanted.stream_ids:
        narrow("stream_id = ANY ({}::uuid[])", list(wanted.stream_ids))
    if wanted.campaign_id is not None:
        narrow("campaign_id = {}", wanted.campaign_id)
    if wanted.agent_job_id is not None:
        narrow("agent_job_id = {}", wanted.agent_job_id)
    if wanted.allowed_campaign_ids is not None:
        narrow("campaign_id = ANY ({}::uuid[])", list(wanted.allowed_campaign_ids))
    arguments += [limit, characters]
    # The running size is summed over the small column alone: a text past the bound is never read from disk.
    query = f"""
        SELECT {columns} FROM (
            SELECT *, sum(size) OVER (ORDER BY position) AS running FROM ledger.events
            WHERE {" AND ".join(conditions)}
            ORDER BY position LIMIT ${len(arguments) - 1}
        ) AS page
        WHERE running <= ${len(arguments)} OR running = size
        ORDER BY position
    """  # noqa: S608 (the conditions are fixed texts above)
    return query, arguments


async def read_page(
    connection: Connection,
    wanted: EventFilter,
    limit: int = PAGE_EVENTS_MAX,
    characters: int | None = None,
) -> list[StoredEvent]:
    """Read the next events, at most `limit`; fewer where they are large. Empty only where there are none.

    Args:
        characters: where a page ends, `PAGE_CHARACTERS_MAX` when None.
    """
    query, arguments = _page_query(_COLUMNS, wanted, limit, characters or PAGE_CHARACTERS_MAX)
    return [StoredEvent(*row) for row in await connection.fetch(query, *arguments)]


async def read_salted_page(
    connection: Connection, wanted: EventFilter, limit: int = PAGE_EVENTS_MAX
) -> list[SaltedEvent]:
    """The same, with salts: for those who may see them, since they make erased texts guessable again."""
    query, arguments = _page_query(_SALTED_COLUMNS, wanted, limit, PAGE_CHARACTERS_MAX)
    return [SaltedEvent(*row) for row in await connection.fetch(query, *arguments)]


async def read_head(connection: Connection) -> int:
    """The position of the last event; 0 while there is none."""
    position = await connection.fetchval(HEAD)
    assert isinstance(position, int)
    return position


async def read_stream_version(connection: Connection, category: str, stream_id: UUID) -> int:
    """The version of a stream; 0 where it does not exist."""
    version = await connection.fetchval(STREAM_VERSION, category, stream_id)
    return int(version or 0)


def read_all(
    database: Database, wanted: EventFilter, page_events_max: int = PAGE_EVENTS_MAX
) -> AsyncIterator[list[StoredEvent]]:
    """Read every event wanted, page by page, each in a short transaction of its own.

    Where `until` is None, up to the head at the start: a reader is not kept going by a writer.
    """
    return _read_pages(database, wanted, page_events_max, read_page)


def read_all_salted(database: Database, wanted: EventFilter) -> AsyncIterator[list[SaltedEvent]]:
    """The same, with salts."""
    return _read_pages(database, wanted, PAGE_EVENTS_MAX, read_salted_page)


async def _read_pages(
    database: Database, wanted: EventFilter, page_events_max: int, read: "_ReadPage[E]"
) -> AsyncIterator[list[E]]:
    if wanted.until is None:
        async with database.connection() as connection:
            wanted = msgspec.structs.replace(wanted, until=await read_head(connection))
    while True:
        async with database.connection() as connection:
            page = await read(connection, wanted, page_events_max)
        if not page:
            return
        yield page
        wanted = msgspec.structs.replace(wanted, after=page[-1].position)
