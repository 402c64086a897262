"""One page of events folded into the tables of a schema: what the worker and the replay have in common."""

import asyncio
from collections.abc import Callable
from itertools import pairwise

import asyncpg
from sqlalchemy.exc import SQLAlchemyError

from ledger.database import CONNECTION_ERRORS, Connection
from ledger.domain.ledger_events import PAYLOAD_ERASED
from ledger.log.read import StoredEvent
from projections.erased_texts import read_texts
from projections.fold import ReadModels, fold, needed_by
from projections.writer import change, insert, load, take_new

_REFUSED_VALUES = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    asyncpg.RaiseError,
)
"""What the database says of values that it will never take."""

_DATABASE_TROUBLES = (
    asyncpg.PostgresError,
    asyncpg.InternalClientError,
    *CONNECTION_ERRORS,
    SQLAlchemyError,
    TimeoutError,
)
"""Whatever else it says: gone, busy, full, read-only, not migrated. These pass, and no event is to blame."""


ERASURES_MAX = 20
"""A page with more erasures is applied in parts: each of them may bring the texts of a whole row into memory."""

PAGE_EVENTS_MAX = 10_000
"""Behind by more, the log is folded in pages of so many: rows that many events change are written once a page."""

PART_EVENTS = 500
"""While PostgreSQL inserts what so many events have opened, the next ones are folded."""

TURNS_TO_SEND = 3
"""Of the event loop, until a part is on its way."""


async def apply_page(
    connection: Connection,
    page: list[StoredEvent],
    schema: str,
    meanwhile: Callable[[], None] | None = None,
) -> list[ReadModels]:
    """Fold a page into the tables of a schema, inside the caller's transaction; the rows it touched, by its parts.

    Args:
        meanwhile: called when rows have been loaded, to begin with what may go on while PostgreSQL inserts.
    """
    erasures = [index for index, event in enumerate(page) if event.type == PAYLOAD_ERASED]
    ends = [0, *erasures[ERASURES_MAX::ERASURES_MAX], len(page)]
    return [
        await _apply(connection, page[start:end], schema, bool(erasures), meanwhile) for start, end in pairwise(ends)
    ]


async def _apply(
    connection: Connection,
    page: list[StoredEvent],
    schema: str,
    erases: bool,
    meanwhile: Callable[[], None] | None,
) -> ReadModels:
    models = await load(connection, needed_by(page), schema)
    if meanwhile is not None:
        meanwhile()
    texts = await read_texts(connection, page) if erases else {}
    inserting = asyncio.ensure_future(asyncio.sleep(0))
    try:
        for start in range(0, len(page), PART_EVENTS):
            fold(page[start : start + PART_EVENTS], models, texts)
            new = take_new(models)
            await inserting
            inserting = asyncio.ensure_future(insert(connection, new, schema))
            for _ in range(TURNS_TO_SEND):
                await asyncio.sleep(0)
    except asyncio.CancelledError:
        inserting.cancel()
        raise
    finally:
        # Nothing else may be said on the connection while it is at work.
        await asyncio.gather(inserting, return_exceptions=True)
    await inserting
    await change(connection, models, schema)
    return models


def is_events_fault(error: Exception) -> bool:
    """Whether a page failed for what it says, and would fail again."""
    # A ValueError among the driver's own errors is a value that cannot be written.
    if isinstance(error, (*_REFUSED_VALUES, ValueError)):
        return True
    return not isinstance(error, _DATABASE_TROUBLES)
