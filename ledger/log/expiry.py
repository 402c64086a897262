"""The sweeper: holds that have run out are freed by a `cost.expired` event, appended like any other."""

import asyncio
import logging
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from ledger.database import driver_connection
from ledger.domain.event import Request
from ledger.domain.judge import expiry
from ledger.log.appender import Appender

log = logging.getLogger(__name__)

SWEEP_HOLDS_MAX = 1_000
IDLE_SECONDS = 1.0

DUE_HOLDS = """
SELECT stream_id FROM ledger.holds
WHERE expires_at <= coalesce($2::timestamptz, clock_timestamp())
ORDER BY expires_at LIMIT $1
"""


async def expire_due(engine: AsyncEngine, appender: Appender, now: datetime | None = None) -> int:
    """Expire the holds that are due, at most `SWEEP_HOLDS_MAX`; the number that were due.

    Several sweepers may meet: what has expired already is refused to the second, and nothing comes of it.

    Args:
        now: the clock, as the appender's; the server's own when None.
    """
    async with driver_connection(engine) as connection:
        due = [row["stream_id"] for row in await connection.fetch(DUE_HOLDS, SWEEP_HOLDS_MAX, now)]
    if due:
        await appender.append(Request([expiry(stream_id, uuid7()) for stream_id in due], independent=True))
    return len(due)


async def sweep(engine: AsyncEngine, appender: Appender) -> None:
    """Expire holds as they fall due, until cancelled."""
    while True:
        try:
            expired = await expire_due(engine, appender)
        except Exception:
            log.exception("the sweeper failed, next try in %.0f s", IDLE_SECONDS)
            expired = 0
        if expired < SWEEP_HOLDS_MAX:
            await asyncio.sleep(IDLE_SECONDS)
