"""The log's clock: times of recording never decrease, even if the clock of the server is set back.

Normally it is the clock of the database server. If events were recorded while that clock was ahead, and it is then set
right, the log's clock stays ahead and would stand still until the server's has caught up: holds would not expire. So it
runs at half speed from the time at which the lead is noticed. The lead shrinks, and a hold lasts at most three times as
long.
"""

from datetime import UTC, datetime

from ledger.database import Connection
from ledger.log.load import Loaded

LEAD_SECONDS_MIN = 1
"""A smaller lead is ignored."""

CLOCK = """
(
    SELECT now, recorded_at > now AS is_ahead, CASE WHEN recorded_at > now
        THEN greatest(recorded_at, ahead_from + (now - ahead_since) / 2) ELSE now END AS log_time
    FROM ledger.log_head, (SELECT coalesce({now}, clock_timestamp()) AS now) AS server
) AS clock
"""
"""The time of the server, `now`, and that of the log, `log_time`; `{now}` is a time to use instead of the server's."""

LOG_TIME = f"SELECT log_time FROM {CLOCK.format(now='$1::timestamptz')}"  # noqa: S608 (fixed texts)

# The clock runs at half speed from here on, unless it does already, and the lead has not grown since.
NOTICE_LEAD = f"""
UPDATE ledger.log_head SET ahead_from = recorded_at, ahead_since = now
FROM (SELECT coalesce($1::timestamptz, clock_timestamp()) AS now) AS server
WHERE recorded_at > now + interval '{LEAD_SECONDS_MIN} s'
    AND (ahead_from IS NULL OR recorded_at > ahead_from + (now - ahead_since) / 2)
RETURNING extract(epoch FROM recorded_at - now)::float8
"""  # noqa: S608 (fixed texts)

LEAD = """
SELECT CASE WHEN recorded_at > $1::timestamptz THEN extract(epoch FROM recorded_at - $1::timestamptz) ELSE 0 END::float8
FROM ledger.log_head
"""


async def with_log_time(connection: Connection, loaded: Loaded, now: datetime | None) -> Loaded:
    """Give a load the time of the log's clock, if that is ahead of the server's.

    Args:
        connection: the one that loaded.
        loaded: what it loaded.
        now: replaces the clock of the server.
    """
    if loaded.append_at > loaded.head.recorded_at.replace(tzinfo=UTC):
        return loaded
    return loaded._replace(append_at=await connection.fetchval(LOG_TIME, now))


async def notice_lead(connection: Connection, now: datetime | None = None) -> float | None:
    """Let the log's clock run at half speed if it is ahead of the server's.

    Args:
        connection: outside any transaction.
        now: replaces the clock of the server.

    Returns:
        By how many seconds it is ahead; None if it is not, or if this had been noticed before.
    """
    lead: float | None = await connection.fetchval(NOTICE_LEAD, now)
    return lead


async def read_lead(connection: Connection, now: datetime) -> float:
    """Return by how many seconds the last event is ahead of a time, such as that of this machine; 0 if it is not."""
    lead: float = await connection.fetchval(LEAD, now)
    return lead
