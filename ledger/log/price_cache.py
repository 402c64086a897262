"""The price book of a process, kept up to date from the log, so that appends load only newer prices.

A load returns the price events from the last known one on, in its own statement: an append that needs prices makes no
further round trip. If the last known event is not in the log any more, as after a failover that lost events, the whole
book is loaded again.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import takewhile
from typing import NamedTuple, Self
from uuid import UUID

import msgspec

from ledger.database import Connection
from ledger.domain.catalogue import decode_stored
from ledger.domain.price import PricePublished, PriceWithdrawn
from ledger.domain.price_book import PriceBook

PAGE_PRICES_MAX = 1_000
"""The most price events that one statement returns."""

LOAD_PRICES = "SELECT ledger.load_prices($1, $2)"


class Marker(NamedTuple):
    """The position and the id of a price event; position 0 is before all of them."""

    position: int
    id: UUID


BEFORE_ALL = Marker(0, UUID(int=0))


class StoredPrice(msgspec.Struct, array_like=True, gc=False):
    """A price event, as `ledger.load_prices` returns it."""

    position: int
    id: UUID
    stream_id: UUID
    type: str
    schema_version: int
    data: str


_rows = msgspec.json.Decoder(list[StoredPrice])


async def read_prices(connection: Connection, start: int = 0) -> AsyncIterator[StoredPrice]:
    """Yield the price events from a position on, page by page."""
    while True:
        rows = _rows.decode(await connection.fetchval(LOAD_PRICES, start, PAGE_PRICES_MAX))
        for row in rows:
            yield row
        if len(rows) < PAGE_PRICES_MAX:
            return
        start = rows[-1].position + 1


class _LoadedPrices:
    """A price book with the marker of its last price event; rows that it has already are skipped."""

    def __init__(self) -> None:
        self.book = PriceBook()
        self.last = BEFORE_ALL

    def clone(self) -> Self:
        """Return a book that can be changed separately, with the same marker."""
        clone = type(self)()
        clone.book, clone.last = self.book.clone(), self.last
        return clone

    def add(self, row: StoredPrice) -> None:
        if row.position > self.last.position:
            payload = decode_stored(row.type, row.schema_version, row.data, None)
            assert isinstance(payload, PricePublished | PriceWithdrawn)
            self.book.add(row.position, row.stream_id, payload)
            self.last = Marker(row.position, row.id)

    def continues_with(self, rows: Sequence[StoredPrice]) -> bool:
        """Whether the log still has the last known price event, by what a load returned.

        Each load returns that event once more. If the event became known during the load, the answer may have it among
        other rows, or lack it; the latter looks like an event that was lost.
        """
        return self.last == BEFORE_ALL or any(Marker(row.position, row.id) == self.last for row in rows)


class PriceCache:
    """The recorded prices up to the last price event that was loaded. Working states get clones of the book.

    Requests share it: what was loaded is replaced as a whole, and only by one of them at a time. A clone is made before
    the head lock is taken, since that takes longer the more prices there are; under the lock it gets only newer prices.
    """

    def __init__(self) -> None:
        self._prices = _LoadedPrices()
        self._clone: _LoadedPrices | None = None
        self._is_loaded = False
        self._lock = asyncio.Lock()

    @property
    def position(self) -> int:
        """The position from which the next load returns price events."""
        return self._prices.last.position

    async def prepare(self, connection: Connection) -> None:
        """Load all prices, unless they were loaded before, and clone the book. Call this without the head lock."""
        if not self._is_loaded:
            await self.current(connection)
        if self._clone is None:
            self._clone = self._prices.clone()

    async def book_at(self, connection: Connection, loaded: str, head: int) -> PriceBook:
        """Return the book as of a position, for a working state.

        Args:
            connection: reads further pages, if the prices do not fit into one.
            loaded: what `ledger.load_prices` returned for `position`, in the statement that loaded the state.
            head: the position of the state; the load may have seen later prices.
        """
        async with self._lock:
            await self._update(connection, loaded)
            book = (self._clone or self._prices.clone()).book
            self._clone = None
        for position in list(takewhile(lambda position: position > head, reversed(book))):
            book.pop(position)
        return book

    async def current(self, connection: Connection) -> PriceBook:
        """Return the book as of now, only for reading, before the caller waits for anything else."""
        async with self._lock:
            await self._update(connection, await self._load(connection))
            self._is_loaded = True
            return self._prices.book

    async def _load(self, connection: Connection) -> str:
        loaded: str = await connection.fetchval(LOAD_PRICES, self.position, PAGE_PRICES_MAX)
        return loaded

    async def _update(self, connection: Connection, loaded: str) -> None:
        rows = _rows.decode(loaded)
        while self._prices.continues_with(rows):
            for row in rows:
                self._prices.add(row)
                if self._clone is not None:
                    self._clone.add(row)
            if len(rows) < PAGE_PRICES_MAX:
                return
            rows = _rows.decode(await self._load(connection))
        prices = _LoadedPrices()
        async for row in read_prices(connection):
            prices.add(row)
        self._prices, self._clone = prices, None
