"""`Replay`: fold the log into another schema, up to any position; for verify, rebuild, time travel.

The worker's own code does the folding. Events are read in short transactions: they never change, and a long snapshot
would keep dead versions of frequently updated rows alive.
"""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import MetaData
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import AddConstraint, CreateIndex, ExecutableDDLElement, ForeignKeyConstraint

from ledger.database import Connection, Database
from ledger.domain.errors import LedgerError
from ledger.log.read import StoredEvent
from ledger.log.tables import NAMING
from projections.journals import JOURNALS
from projections.models import Base
from projections.page import FOLD_PAGE_EVENTS_MAX, apply_page, is_events_fault
from projections.prefetch import PageReader
from projections.skips import Skip, read_skips
from projections.tables import REFERENCED_FIRST

TEMPORARY = "pg_temp"
"""The schema of temporary tables, which are dropped when their connection closes."""

PAGE_SETTINGS = "SET LOCAL lock_timeout = '10s'; SET LOCAL enable_seqscan = off"
"""The tables start empty and are not analysed while they fill: sequential scans, planned for a few rows, would stay."""

CREATE_TABLE = """
CREATE TABLE {schema}.{table} (LIKE public.{table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS, PRIMARY KEY ({key}))
"""

JOURNAL_TABLES = tuple(Base.metadata.tables[journal.name] for journal in JOURNALS)

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


class ChangedRow(NamedTuple):
    """A row that a replay has written or deleted."""

    table: str
    id: UUID


class Replay:
    """The read models in a schema, at the position that the replay has reached."""

    def __init__(
        self,
        database: Database,
        connection: Connection,
        schema: str,
        progress: Progress = lambda position: None,
    ) -> None:
        """Make a replay; nothing is created in the database yet.

        Args:
            database: prefetches events.
            connection: reads events and writes the tables.
            schema: of the tables; it exists and is empty.
            progress: called after each page.
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
    def skipped_positions(self) -> list[int]:
        """The positions of the skipped events."""
        return [skip.position for skip in self.skipped]

    async def create_tables(self) -> None:
        """Create the tables, without the indexes and foreign keys that would slow down loading."""
        for model in REFERENCED_FIRST:
            await self._connection.execute(CREATE_TABLE.format(schema=self._schema, table=model.name, key="id"))
        for journal in JOURNALS:
            await self._connection.execute(CREATE_TABLE.format(schema=self._schema, table=journal.name, key="position"))
        if await read_skips(self._connection):
            # A skip may have made foreign keys of the live tables refuse later events: the replay must refuse them too.
            await self.add_indexes()

    async def advance(self, until: int, changed: set[ChangedRow] | None = None) -> None:
        """Fold the events between the position reached and another one.

        Args:
            until: the position of the last event to fold.
            changed: the rows written or deleted are added to it.

        Raises:
            ReplayError: an event cannot be folded, and no operator has decided to skip it.
        """
        self._skips = await read_skips(self._connection)
        reader = PageReader(self._database, until)
        try:
            while page := await reader.read(self._connection, self.position, FOLD_PAGE_EVENTS_MAX):
                await self._apply(page, reader, changed)
                self.position = page[-1].position
                self._progress(self.position)
        finally:
            await reader.close()
        self.position = max(self.position, until)
        await self._set_null()

    async def _apply(self, page: list[StoredEvent], reader: PageReader, changed: set[ChangedRow] | None) -> None:
        try:
            async with self._connection.transaction():
                await self._connection.execute(PAGE_SETTINGS)
                prefetch = partial(reader.prefetch, page, FOLD_PAGE_EVENTS_MAX)
                parts = await apply_page(self._connection, page, self._schema, prefetch)
        except Exception as error:
            if not is_events_fault(error):
                raise
            if len(page) > 1:
                # Halve the page until the event that cannot be folded is alone.
                await self._apply(page[: len(page) // 2], reader, changed)
                await self._apply(page[len(page) // 2 :], reader, changed)
            elif page[0].position in self._skips:
                self.skipped.append(self._skips[page[0].position])
            else:
                raise ReplayError(page[0], error) from error
        else:
            if changed is not None:
                for rows, model in product(parts, REFERENCED_FIRST):
                    changed.update(ChangedRow(model.name, row_id) for row_id in rows.of(model).ids)

    async def _set_null(self) -> None:
        for model in REFERENCED_FIRST:
            for column, target, _ in model.set_null_references:
                await self._connection.execute(
                    SET_NULL.format(schema=self._schema, table=model.name, column=column, target=target.name)
                )

    async def add_indexes(self) -> None:
        """Create the indexes and foreign keys of the live tables, and collect statistics."""
        if self._is_indexed:
            return
        self._is_indexed = True
        metadata = MetaData(schema=self._schema, naming_convention=NAMING)
        dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
        tables = [
            table.to_metadata(metadata, schema=self._schema, referred_schema_fn=lambda *_: self._schema)
            for table in (*(model.table for model in REFERENCED_FIRST), *JOURNAL_TABLES)
        ]
        for table in tables:
            statements: list[ExecutableDDLElement] = [CreateIndex(index) for index in table.indexes]
            statements += [AddConstraint(key) for key in table.constraints if isinstance(key, ForeignKeyConstraint)]
            for statement in statements:
                await self._connection.execute(str(statement.compile(dialect=dialect)))
            await self._connection.execute(f"ANALYZE {table.fullname}")
