"""One page of events folded into the tables of a schema: what the worker and the replay have in common."""

import asyncpg
from sqlalchemy.exc import SQLAlchemyError

from ledger.database import CONNECTION_ERRORS
from ledger.log.read import StoredEvent
from projections.fold import ReadModels, fold, needed_by
from projections.writer import load, write

_DATABASE_TROUBLES = (
    *CONNECTION_ERRORS,
    SQLAlchemyError,
    TimeoutError,
    asyncpg.LockNotAvailableError,
    asyncpg.TransactionRollbackError,
    asyncpg.InsufficientResourcesError,
    asyncpg.SyntaxOrAccessError,
)
"""Gone, busy, full, not migrated: these pass, and no event is to blame."""


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
    return isinstance(error, ValueError) or not isinstance(error, _DATABASE_TROUBLES)
