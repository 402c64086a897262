"""Complete exports: events up to a position, then to the records of erasures of their texts."""

from collections.abc import AsyncIterator

from ledger.database import Connection, Database
from ledger.domain.ledger_events import PAYLOAD_ERASED
from ledger.log.read import PAGE_EVENTS_MAX, EventFilter, SaltedEvent, read_all_salted

LAST_ERASURE = f"""
SELECT max(position) FROM ledger.ledger_events
WHERE type = '{PAYLOAD_ERASED}' AND position > $1 AND (data ->> 'position')::bigint <= $1
"""  # noqa: S608 (a fixed name)


async def last_erasure(connection: Connection, until: int) -> int:
    """Return where the last erasure is recorded, after a position, of a text up to it; 0 if there is none."""
    return await connection.fetchval(LAST_ERASURE, until) or 0


async def read_with_erasures(
    database: Database,
    after: int,
    until: int,
    page_events_max: int = PAGE_EVENTS_MAX,
    page_characters_max: int | None = None,
) -> AsyncIterator[list[SaltedEvent]]:
    """Read all events, page by page, and on to the last record of an erasure of a text up to there.

    A text that is erased while the pages are read may be missing in them; without the record, the export would look as
    if the text had been removed from it.

    Args:
        database: the database of the log.
        after: the position after which to begin.
        until: the position up to which to read at least.
        page_events_max: the most events in a page.
        page_characters_max: as for `read_page`.

    Yields:
        pages of events in order of position; none is empty.
    """
    while until:
        async for page in read_all_salted(database, EventFilter(after, until), page_events_max, page_characters_max):
            yield page
        async with database.connection() as connection:
            after, until = until, await last_erasure(connection, until)
