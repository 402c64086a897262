"""The log folded into tables of its own, up to any point, by the very code of the worker.

Verification, rebuild and time travel are this one thing. Events are read in short transactions, since they never
change and a long snapshot would keep dead versions of hot rows alive; the next page is read while one is written.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from itertools import product
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from sqlalchemy import MetaData
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import AddConstraint, CreateIndex, ExecutableDDLElement, ForeignKeyConstraint

from ledger.database import Connection, Database
from ledger.domain.errors import LedgerError
from ledger.log.read import EventFilter, StoredEvent, read_all
from ledger.log.tables import NAMING
from projections.page import PAGE_EVENTS_MAX, apply_page, is_events_fault
from projections.skips import Skip, read_skips
from projections.tables import REFERENCED_FIRST

if TYPE_CHECKING:
    pass

TEMPORARY = "pg_temp"
"""The schema of tables that go with their connection, however it ends."""

BEGIN = "SET LOCAL lock_timeout = '10s'; SET LOCAL enable_seqscan = off"
"""The tables begin empty and are never analysed meanwhile: without this, plans made for a few rows would stay."""

CREATE_TABLE = """
CREATE TABLE {schema}.{table} (LIKE public.{table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS, PRIMARY KEY (id))
"""

SET_NULL = """
UPDATE {schema}.{table} AS row SET {column} = NULL
WHERE {column} IS NOT NULL AND NOT EXISTS (SELECT FROM {schema}.{target} WHERE id = row.{column})
"""
"""Does for all rows at once what ON DELETE SET NULL does to live tables: a replay has no foreign keys until its end."""

Progress = Callable[[int], None]
"""Called with the position reached."""


class ReplayError(LedgerError):
    """An event cannot be folded."""

    def __init__(self, event: StoredEvent, cause: Exception) -> None:
        super().__init__(
            f"the log cannot be replayed past position {event.position - 1}: {event.type} in schema version "
            f"{event.schema_version} at position {event.position} fails with {type(cause).__name__}: {cause}"
        )
        self.position = event.position


class Touched(NamedTuple):
    """A row that a replay has written or deleted."""

    table: str
    id: UUID


class Replay:
    """The four tables in a schema, as they stood at a position."""

    def __init__(
        self,
        database: Database,
        connection: Connection,
        schema: str,
        progress: Progress = lambda position: None,
    ) -> None:
        """Make a replay; nothing is in the database yet.

        Args:
            database: where events are read.
            connection: what writes the tables.
            schema: where they are; it exists and is empty.
        """
        self._database = database
        self._connection = connection
        self._schema = schema
        self._progress = progress
        self._skips: dict[int, Skip] = {}
        self._is_indexed = False
        self.position = 0
        self.skipped: list[Skip] = []

    @property
    def left_out(self) -> list[int]:
        """The positions of the skipped events."""
        return [skip.position for skip in self.skipped]

    async def create_tables(self) -> None:
        """Make the tables, without what slows loading down."""
        for model in REFERENCED_FIRST:
            await self._connection.execute(CREATE_TABLE.format(schema=self._schema, table=model.name))
        if await read_skips(self._connection):
            # What the live tables' foreign keys have refused after a skip must be refused here.
            await self.add_indexes()

    async def advance(self, until: int, touched: set[Touched] | None = None) -> None:
        """Fold what lies between the position reached and this one.

        Args:
            touched: the rows that were written or deleted are added here.

        Raises:
            ReplayError: an event cannot be folded, and no operator has let the read models pass it.
        """
        self._skips = await read_skips(self._connection)
        wanted = EventFilter(after=self.position, until=until)
        # Closed at once where an event cannot be folded: the page read ahead has a connection.
        async with aclosing(_read_ahead(read_all(self._database, wanted, PAGE_EVENTS_MAX))) as pages:
            async for page in pages:
                await self._apply(page, touched)
                self.position = page[-1].position
                self._progress(self.position)
        self.position = max(self.position, until)
        await self._set_null()

    async def _apply(self, page: list[StoredEvent], touched: set[Touched] | None) -> None:
        try:
            async with self._connection.transaction():
                await self._connection.execute(BEGIN)
                parts = await apply_page(self._connection, page, self._schema)
        except Exception as error:
            if not is_events_fault(error):
                raise
            if len(page) > 1:
                # By halves, until what cannot be folded stands alone.
                await self._apply(page[: len(page) // 2], touched)
                await self._apply(page[len(page) // 2 :], touched)
            elif page[0].position in self._skips:
                self.skipped.append(self._skips[page[0].position])
            else:
                raise ReplayError(page[0], error) from error
        else:
            if touched is not None:
                for models, model in product(parts, REFERENCED_FIRST):
                    touched.update(Touched(model.name, row_id) for row_id in models.of(model).ids)

    async def _set_null(self) -> None:
        for model in REFERENCED_FIRST:
            for column, target, _ in model.set_null_references:
                await self._connection.execute(
                    SET_NULL.format(schema=self._schema, table=model.name, column=column, target=target.name)
                )

    async def add_indexes(self) -> None:
        """Make the indexes and foreign keys of the live tables, and gather statistics."""
        if self._is_indexed:
            return
        self._is_indexed = True
        metadata = MetaData(schema=self._schema, naming_convention=NAMING)
        dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
        tables = [
            model.table.to_metadata(metadata, schema=self._schema, referred_schema_fn=lambda *_: self._schema)
            for model in REFERENCED_FIRST
        ]
        for table in tables:
            statements: list[ExecutableDDLElement] = [CreateIndex(index) for index in table.indexes]
            statements += [AddConstraint(key) for key in table.constraints if isinstance(key, ForeignKeyConstraint)]
            for statement in statements:
                await self._connection.execute(str(statement.compile(dialect=dialect)))
            await self._connection.execute(f"ANALYZE {table.fullname}")


async def _read_ahead(pages: AsyncIterator[list[StoredEvent]]) -> AsyncGenerator[list[StoredEvent]]:
    """The same pages, each read while the one before it is at work."""
    reading = asyncio.ensure_future(anext(pages, None))
    try:
        while (page := await reading) is not None:
            reading = asyncio.ensure_future(anext(pages, None))
            yield page
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
