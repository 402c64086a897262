"""The sweeper: holds that have run out are freed by a `cost.expired` event, appended like any other."""

import asyncio
import logging
from datetime import datetime

from uuid_utils.compat import uuid7

from ledger.database import Database
from ledger.domain.event import Request
from ledger.domain.judge import expiry
from ledger.log.appender import Appender
from ledger.log.notifications import LogSignal

logger = logging.getLogger(__name__)

SWEEP_HOLDS_MAX = 1_000

PAUSE_SECONDS_MIN = 0.05
PAUSE_SECONDS_MAX = 1.0
"""A busy log rings all the time: the sweeper looks again no sooner than this, or when the next hold runs out."""

DUE_HOLDS = """
SELECT stream_id FROM ledger.holds
WHERE expires_at <= coalesce($2::timestamptz, clock_timestamp())
ORDER BY expires_at LIMIT $1
"""

SECONDS_TO_NEXT = """
SELECT extract(epoch FROM min(expires_at) - clock_timestamp())::float8 FROM ledger.holds
"""


async def expire_due(database: Database, appender: Appender, now: datetime | None = None) -> int:
    """Expire the holds that are due, at most `SWEEP_HOLDS_MAX`; the number that were due.

    Several sweepers may meet: what has expired already is refused to the second, and nothing comes of it.

    Args:
        now: the clock, as the appender's; the server's own when None.
    """
    async with database.connection() as connection:
        due = [row["stream_id"] for row in await connection.fetch(DUE_HOLDS, SWEEP_HOLDS_MAX, now)]
    if due:
        await appender.append(Request([expiry(stream_id, uuid7()) for stream_id in due], independent=True))
    return len(due)


async def sweep(database: Database, appender: Appender, signal: LogSignal) -> None:
    """Expire holds as they fall due, until cancelled; asleep until the next one runs out or the log grows."""
    while True:
        seen = signal.generation
        try:
            if await expire_due(database, appender) == SWEEP_HOLDS_MAX:
                continue
            async with database.connection() as connection:
                seconds = await connection.fetchval(SECONDS_TO_NEXT)
        except Exception:
            logger.exception("the sweeper failed, next try in %.0f s", PAUSE_SECONDS_MAX)
            seconds = PAUSE_SECONDS_MAX
        wait = (
            signal.idle_seconds_max
            if seconds is None
            else min(max(seconds, PAUSE_SECONDS_MIN), signal.idle_seconds_max)
        )
        await asyncio.sleep(min(wait, PAUSE_SECONDS_MAX))
        if wait > PAUSE_SECONDS_MAX:
            await signal.wait(seen, wait - PAUSE_SECONDS_MAX)
