"""Prefetch: the next page of events is read from the log while the current one is folded and written."""

import asyncio

from ledger.database import Connection, Database
from ledger.log.read import EventFilter, StoredEvent, read_page

PREFETCH_EVENTS_MIN = 500
"""After a smaller page the reader is at the end of the log: there is nothing to prefetch."""


# After a failover or a restore, the log may lack its former end: a prefetched page counts only if its last event still
# has the same identity and the same time of recording.
IS_STILL_STORED = """
SELECT EXISTS (SELECT FROM ledger.events WHERE position = $1 AND id = $2 AND recorded_at = $3)
"""


class PageReader:
    """Reads the log page by page, and on request one page ahead. Events never change, so an early read is as good."""

    def __init__(self, database: Database, until: int | None = None) -> None:
        """Make a reader.

        Args:
            database: prefetches on a second connection of its pool.
            until: the last position to read; None: no limit.
        """
        self._database = database
        self._until = until
        self._prefetched_after = 0
        self._prefetch: asyncio.Task[list[StoredEvent]] | None = None

    async def read(self, connection: Connection, after: int, events_max: int) -> list[StoredEvent]:
        """Return the next page past a position: the prefetched one, or one read now.

        Args:
            connection: reads the page, and checks that a prefetched one is still valid.
            after: the position that the page follows.
            events_max: the most events to return.

        Returns:
            events in the order of their positions; empty at the end of the log.
        """
        page = await self._take(after)
        if not page or len(page) > events_max or not await _is_still_stored(connection, page[-1]):
            page = await read_page(connection, EventFilter(after=after, until=self._until), events_max)
        return page

    def prefetch(self, page: list[StoredEvent], events_max: int) -> None:
        """Start to read the page after this one, unless the log's end is near or a prefetch is running."""
        # Behind a transaction-mode pooler there may be no connection but the one the caller holds.
        if len(page) >= PREFETCH_EVENTS_MIN and self._prefetch is None and not self._database.is_pooled:
            self._prefetched_after = page[-1].position
            self._prefetch = asyncio.create_task(self._read(self._prefetched_after, events_max))

    async def _take(self, after: int) -> list[StoredEvent]:
        prefetch, self._prefetch = self._prefetch, None
        if prefetch is None:
            return []
        is_next = self._prefetched_after == after
        if not is_next:
            prefetch.cancel()
        # An error of the prefetch is ignored: if it persists, the caller's own read raises it.
        (page,) = await asyncio.gather(prefetch, return_exceptions=True)
        return page if is_next and not isinstance(page, BaseException) else []

    async def _read(self, after: int, events_max: int) -> list[StoredEvent]:
        async with self._database.connection() as connection:
            return await read_page(connection, EventFilter(after=after, until=self._until), events_max)

    async def close(self) -> None:
        """Discard what was prefetched."""
        await self._take(-1)


async def _is_still_stored(connection: Connection, event: StoredEvent) -> bool:
    return bool(await connection.fetchval(IS_STILL_STORED, event.position, event.id, event.recorded_at))
