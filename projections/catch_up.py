"""Catch up once: fold the new events of the log if no worker does, for commands that append and exit."""

from contextlib import suppress

from ledger.database import Database
from ledger.domain.errors import ProjectionBehind
from projections.positions import wait_for_read_models
from projections.queries import ProjectionStatus, projection_status
from projections.worker import fold_page


async def fold_new_events(database: Database) -> ProjectionStatus:
    """Fold all events that are in the log now, or wait for the worker that does.

    Args:
        database: the database of the log.

    Returns:
        the status of the read models. They are behind if they are paused, or if the worker has not finished in time.

    Raises:
        PageError: an event could not be folded.
    """
    while await fold_page(database):
        pass
    status = await _read_status(database)
    if status.lag_events:
        with suppress(ProjectionBehind):
            await wait_for_read_models(database, status.head)
        status = await _read_status(database)
    return status


async def _read_status(database: Database) -> ProjectionStatus:
    async with database.connection() as connection:
        return await projection_status(connection)
