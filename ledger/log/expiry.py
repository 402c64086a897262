"""The sweeper: expires due holds, and releases holds that ended jobs have left open."""

import asyncio
import logging
from datetime import datetime

from uuid_utils.compat import uuid7

from ledger.database import Connection, Database, log_level
from ledger.domain.event import Request
from ledger.domain.service_events import hold_expiry
from ledger.log.appender import Appender
from ledger.log.log_clock import CLOCK, notice_lead
from ledger.log.notifications import LogSignal
from ledger.log.pending_releases import release_pending_holds

logger = logging.getLogger(__name__)

EXPIRED_HOLDS_MAX = 1_000
"""The most holds that one request expires."""

PAUSE_SECONDS_MIN = 0.05
PAUSE_SECONDS = 1.0
"""Pause between checks while the log grows, and after an error; shorter only if the next hold is due earlier."""

DUE_HOLDS = f"""
SELECT stream_id FROM ledger.holds
WHERE expires_at <= (SELECT log_time FROM {CLOCK.format(now="$2::timestamptz")})
ORDER BY expires_at LIMIT $1
"""  # noqa: S608 (fixed texts)

SECONDS_TO_NEXT = f"""
SELECT (extract(epoch FROM next.expires_at - log_time) * CASE WHEN is_ahead THEN 2 ELSE 1 END)::float8
FROM (SELECT min(expires_at) AS expires_at FROM ledger.holds) AS next, {CLOCK.format(now="NULL")}
"""  # noqa: S608 (fixed texts)


async def expire_due_holds(database: Database, appender: Appender, now: datetime | None = None) -> int:
    """Expire the holds that are due, at most `EXPIRED_HOLDS_MAX`.

    Several processes may call this at the same time: expiring a hold twice is refused, which has no effect.

    Args:
        database: the database of the log.
        appender: records the events.
        now: the present time, the same as the appender's; the clock of the database server when None.

    Returns:
        the number of holds that were due.
    """
    async with database.connection() as connection:
        due = [row["stream_id"] for row in await connection.fetch(DUE_HOLDS, EXPIRED_HOLDS_MAX, now)]
    if due:
        await appender.append(Request([hold_expiry(stream_id, uuid7()) for stream_id in due], independent=True))
    return len(due)


async def expire_holds(database: Database, appender: Appender, signal: LogSignal) -> None:
    """Expire holds as they become due and release pending ones, until cancelled.

    It sleeps until the next hold is due or the log grows.

    Args:
        database: the database of the log.
        appender: records the events.
        signal: notified when the log grows.
    """
    while True:
        seen = signal.generation
        try:
            expired = await expire_due_holds(database, appender)
            released = await release_pending_holds(database, appender)
            if expired == EXPIRED_HOLDS_MAX or released:
                continue
            async with database.connection() as connection:
                await _warn_if_clock_is_ahead(connection)
                seconds = await connection.fetchval(SECONDS_TO_NEXT)
        except Exception as error:
            level = log_level(error, logging.ERROR)
            logger.log(level, "expiring holds failed; next attempt in %.0f s", PAUSE_SECONDS, exc_info=error)
            seconds = PAUSE_SECONDS
        pause = (
            signal.idle_seconds_max
            if seconds is None
            else min(max(seconds, PAUSE_SECONDS_MIN), signal.idle_seconds_max)
        )
        await asyncio.sleep(min(pause, PAUSE_SECONDS))
        if pause > PAUSE_SECONDS:
            await signal.wait(seen, pause - PAUSE_SECONDS)


async def _warn_if_clock_is_ahead(connection: Connection) -> None:
    lead = await notice_lead(connection)
    if lead is not None:
        logger.warning(
            "the time of the last event is %.0f s ahead of the database server's clock; until that has caught up, the "
            "log's clock runs at half speed, so holds last longer",
            lead,
        )
