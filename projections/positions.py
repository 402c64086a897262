"""Wait until the read models, or a replica's log, reach a position (`min_position`)."""

import asyncio
from collections.abc import Awaitable, Callable

from ledger.backoff import Backoff
from ledger.database import Connection, Database
from ledger.domain.errors import ProjectionBehind
from ledger.log.read import read_head
from projections.checkpoint import read_position

MIN_POSITION_SECONDS_MAX = 5.0

POLL_SECONDS_MIN = 0.002
POLL_SECONDS_MAX = 0.05
POLL_GROWTH = 1.25
"""Back-off factor: an answer is late by at most a quarter of the time waited."""


async def wait_for_read_models(
    database: Database, position: int, seconds_max: float = MIN_POSITION_SECONDS_MAX
) -> None:
    """Wait until the read models reflect a position.

    Args:
        database: the primary or a replica.
        position: of an event; 0 is always reflected.
        seconds_max: the timeout.

    Raises:
        ProjectionBehind: the timeout expired.
    """
    await _wait(database, position, seconds_max, read_position, "the read models are")


async def wait_for_log(database: Database, position: int, seconds_max: float) -> None:
    """Wait until the log of a replica reaches a position.

    Args:
        database: the replica.
        position: of an event.
        seconds_max: the timeout.

    Raises:
        ProjectionBehind: the timeout expired.
    """
    await _wait(database, position, seconds_max, read_head, "the replica's log is")


async def _wait(
    database: Database, position: int, seconds_max: float, read: Callable[[Connection], Awaitable[int]], subject: str
) -> None:
    """Poll with back-off: notifications announce appended events, not folded ones."""
    backoff = Backoff(POLL_SECONDS_MIN, POLL_SECONDS_MAX, factor=POLL_GROWTH)
    reached = 0
    try:
        async with asyncio.timeout(seconds_max):
            while True:
                async with database.connection() as connection:
                    reached = await read(connection)
                if reached >= position:
                    return
                await asyncio.sleep(backoff.next())
    except TimeoutError:
        raise ProjectionBehind(f"{subject} at position {reached}, not yet at {position}; retry in a moment") from None
