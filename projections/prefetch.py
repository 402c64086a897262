"""Reading ahead: the next page of events comes out of the log while one is folded and written."""

import asyncio
from typing import TYPE_CHECKING

from ledger.database import Connection, Database
from ledger.log.read import EventFilter, StoredEvent, read_page

if TYPE_CHECKING:
    pass

AHEAD_EVENTS_MIN = 500
"""After a smaller page the reader is at the log's end, and there is nothing to read ahead."""


# The server may be another by now, to which the end of the log never came: two events are the same only where both
# their identity and the time at which they were recorded are.
IS_STILL_THERE = """
SELECT EXISTS (SELECT FROM ledger.events WHERE position = $1 AND id = $2 AND recorded_at = $3)
"""


class PageReader:
    """Reads a log page by page, one page ahead when told to. Events never change: early is as good."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._after = 0
        self._reading: asyncio.Task[list[StoredEvent]] | None = None

    async def read(self, connection: Connection, after: int, events_max: int) -> list[StoredEvent]:
        """The next page past a position, as it was read ahead, or read now on this connection."""
        page = await self._take(after)
        if not page or len(page) > events_max or not await _is_still_there(connection, page[-1]):
            page = await read_page(connection, EventFilter(after=after), events_max)
        return page

    def read_on(self, page: list[StoredEvent], events_max: int) -> None:
        """Begin to read the page after this one, where there is much to come and nothing is being read."""
        # Behind a pooler there may be no other connection than the one that is held.
        if len(page) >= AHEAD_EVENTS_MIN and self._reading is None and not self._database.is_pooled:
            self._after = page[-1].position
            self._reading = asyncio.create_task(self._read(self._after, events_max))

    async def _take(self, after: int) -> list[StoredEvent]:
        reading, self._reading = self._reading, None
        if reading is None:
            return []
        is_next = self._after == after
        if not is_next:
            reading.cancel()
        # What went wrong ahead of time is found again, and said, by who reads in time.
        (page,) = await asyncio.gather(reading, return_exceptions=True)
        return page if is_next and not isinstance(page, BaseException) else []

    async def _read(self, after: int, events_max: int) -> list[StoredEvent]:
        async with self._database.connection() as connection:
            return await read_page(connection, EventFilter(after=after), events_max)

    async def close(self) -> None:
        """Let go of what was read ahead."""
        await self._take(-1)


async def _is_still_there(connection: Connection, event: StoredEvent) -> bool:
    return bool(await connection.fetchval(IS_STILL_THERE, event.position, event.id, event.recorded_at))
