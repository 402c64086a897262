"""Folds one page of events into the tables of a schema: shared by the worker and the replay."""

import asyncio
from collections.abc import Callable, Sequence
from itertools import pairwise
from types import TracebackType
from typing import Self

import asyncpg
from sqlalchemy.exc import SQLAlchemyError

from ledger.database import CONNECTION_ERRORS, Connection
from ledger.domain.ledger_events import PAYLOAD_ERASED
from ledger.log.read import StoredEvent
from projections.erased_texts import read_remaining_texts
from projections.fold import PageRows, fold_events, needed_by
from projections.writer import insert_rows, load_rows, take_inserts, write_changes

_VALUE_ERRORS = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    asyncpg.RaiseError,
    # Among the driver's errors: a value that it cannot encode.
    ValueError,
)
"""The database will never accept these values."""

_TRANSIENT_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InternalClientError,
    *CONNECTION_ERRORS,
    SQLAlchemyError,
    TimeoutError,
)
"""All other errors of the database: unreachable, busy, full, read-only, not migrated. No event causes them."""

FOLD_PAGE_EVENTS_MAX = 10_000
"""The most events of a page: a row that many of them change is written only once."""

ERASURES_MAX = 20
"""A page with more erasures is folded in parts: each erasure may load the texts of a whole row into memory."""

PART_EVENTS = 500
"""PostgreSQL inserts the new rows of this many events while the next ones are folded."""


async def apply_page(
    connection: Connection,
    page: list[StoredEvent],
    schema: str,
    on_loaded: Callable[[], None] | None = None,
) -> list[PageRows]:
    """Fold a page into the tables of a schema, inside the caller's transaction.

    Args:
        connection: inside a transaction.
        page: consecutive events of the log.
        schema: of the tables.
        on_loaded: called once the rows are loaded, to start what can run while PostgreSQL inserts.

    Returns:
        the rows that the page touched, by its parts.
    """
    erasures = [index for index, event in enumerate(page) if event.type == PAYLOAD_ERASED]
    ends = [0, *erasures[ERASURES_MAX::ERASURES_MAX], len(page)]
    return [
        await _apply(connection, page[start:end], schema, bool(erasures), on_loaded) for start, end in pairwise(ends)
    ]


async def _apply(
    connection: Connection,
    page: list[StoredEvent],
    schema: str,
    has_erasures: bool,
    on_loaded: Callable[[], None] | None,
) -> PageRows:
    rows = await load_rows(connection, needed_by(page), schema)
    if on_loaded is not None:
        on_loaded()
    texts = await read_remaining_texts(connection, page) if has_erasures else {}
    async with _BackgroundInsert(connection, schema) as inserting:
        for start in range(0, len(page), PART_EVENTS):
            fold_events(page[start : start + PART_EVENTS], rows, texts)
            await inserting.start(take_inserts(rows))
    await write_changes(connection, rows, schema)
    return rows


class _BackgroundInsert:
    """Inserts rows while the caller folds the next events; one INSERT at a time, since the connection runs only one."""

    def __init__(self, connection: Connection, schema: str) -> None:
        self._connection = connection
        self._schema = schema
        self._task: asyncio.Task[None] | None = None

    async def start(self, inserts: Sequence[bytes]) -> None:
        """Wait for the INSERT before this one, then send this one and return."""
        if self._task is not None:
            await self._task
        self._task = asyncio.create_task(insert_rows(self._connection, inserts, self._schema))
        # Lets the task run until it waits for PostgreSQL's answer. Otherwise nothing would be sent before the caller
        # waits again, which is after its fold, and PostgreSQL would be idle until then.
        await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._task is None:
            return
        if isinstance(error, asyncio.CancelledError):
            self._task.cancel()
        # Even after an error: the connection accepts no other statement before this one has ended.
        await asyncio.gather(self._task, return_exceptions=True)
        if error is None:
            await self._task


def is_events_fault(error: Exception) -> bool:
    """Whether a page failed because of its events, so that it would fail again."""
    return isinstance(error, _VALUE_ERRORS) or not isinstance(error, _TRANSIENT_ERRORS)
