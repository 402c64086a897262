"""One page of events folded into the tables of a schema: what the worker and the replay have in common."""

import asyncpg
from sqlalchemy.exc import SQLAlchemyError

from ledger.database import CONNECTION_ERRORS
from ledger.log.read import StoredEvent
from projections.fold import ReadModels, fold, needed_by
from projections.writer import load, write

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


async def apply_page(
    connection: "asyncpg.Connection[asyncpg.Record]", page: list[StoredEvent], schema: str
) -> ReadModels:
    """Fold a page into the tables of a schema, inside the caller's transaction; the rows it touched."""
    models = await load(connection, needed_by(page), schema)
    fold(page, models)
    await write(connection, models, schema)
    return models


def is_events_fault(error: Exception) -> bool:
    """Whether a page failed for what it says, and would fail again."""
    # A ValueError among the driver's own errors is a value that cannot be written.
    if isinstance(error, (*_REFUSED_VALUES, ValueError)):
        return True
    return not isinstance(error, _DATABASE_TROUBLES)
