"""The log's clock: times of recording never decrease, even if the clock of the server is set back.

Normally it is the clock of the database server. If events were recorded while that clock was ahead, and it is then set
right, the log's clock stays ahead and would stand still until the server's has caught up: holds would not expire. So it
runs at half speed from the time at which the lead is noticed. The lead shrinks, and a hold lasts at most three times as
long.
"""

from datetime import datetime

from ledger.database import Connection

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


def log_time(
    append_at: datetime, server_time: datetime, ahead_from: datetime | None, ahead_since: datetime | None
) -> datetime:
    """Return the time of the log's clock for an append, as `CLOCK` computes it in SQL.

    Args:
        append_at: the time of the server, or that of the last event if that is later.
        server_time: the time of the server.
        ahead_from: the time of the log at which its lead was noticed; None if it has never been ahead.
        ahead_since: the time of the server at that time.
    """
    if append_at <= server_time or ahead_from is None or ahead_since is None:
        return append_at
    return max(append_at, ahead_from + (server_time - ahead_since) / 2)


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
