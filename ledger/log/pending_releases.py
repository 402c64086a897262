"""Pending releases: the holds of ended jobs that are still open, released in steps.

A group releases at most `RELEASES_MAX` holds, so that no append takes much longer than others. A job that ends with
more gets a row in `ledger.pending_releases`, and the sweeper releases the rest; until then they count as held.
"""

from uuid_utils.compat import uuid7

from ledger.database import Connection, Database
from ledger.domain.catalogue import sql_list
from ledger.domain.event import Receipt, Request
from ledger.domain.service_events import later_release
from ledger.domain.working_state import RELEASES_MAX
from ledger.log.appender import Appender

JOB_ENDS = sql_list(lambda event_type: event_type.ends_job)

# The plans of these statements stay in the session while the tables grow: planned for empty tables, they would scan
# large ones, once for each hold. A bitmap scan would read all holds of a job for each step.
INDEX_SCANS = "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off"

# A job that was retried meanwhile may have new holds: only those from before its end are released.
# MATERIALIZED and OFFSET 0: the joins are planned in this order, so that reading ends after a step.
NEXT_HOLDS = f"""
WITH ended AS MATERIALIZED (
    SELECT event.id, event.correlation_id, pending.job_id, pending.position
    FROM ledger.pending_releases AS pending
    JOIN ledger.job_events AS event ON event.stream_id = pending.job_id AND event.position = pending.position
        AND event.type IN ({JOB_ENDS})
)
SELECT hold.stream_id, ended.id AS ended_by, ended.correlation_id
FROM ended
CROSS JOIN LATERAL (SELECT stream_id FROM ledger.holds WHERE agent_job_id = ended.job_id OFFSET 0) AS hold
CROSS JOIN LATERAL (
    SELECT position FROM ledger.cost_events WHERE stream_id = hold.stream_id AND version = 1 OFFSET 0
) AS opened
WHERE opened.position < ended.position
LIMIT $1
"""  # noqa: S608 (fixed text)

# Joined with itself: a row that another process changes meanwhile is kept, since its holds may not be visible yet.
FINISHED = """
DELETE FROM ledger.pending_releases AS pending USING ledger.pending_releases AS seen
WHERE seen.job_id = pending.job_id AND seen.position = pending.position AND NOT EXISTS (
    SELECT FROM ledger.holds AS hold JOIN ledger.cost_events AS opened
        ON opened.stream_id = hold.stream_id AND opened.version = 1 AND opened.position < seen.position
    WHERE hold.agent_job_id = seen.job_id
)
"""

# After an import: the export may have been made between the end of a job and the release of its last hold.
FIND_PENDING = f"""
INSERT INTO ledger.pending_releases (job_id, position)
SELECT hold.agent_job_id, max(ended.position)
FROM ledger.holds AS hold
JOIN ledger.cost_events AS opened ON opened.stream_id = hold.stream_id AND opened.version = 1
JOIN ledger.job_events AS ended
    ON ended.stream_id = hold.agent_job_id AND ended.position > opened.position
    AND ended.type IN ({JOB_ENDS})
GROUP BY hold.agent_job_id
ON CONFLICT (job_id) DO UPDATE SET position = excluded.position
"""  # noqa: S608 (fixed text)


async def release_pending_holds(database: Database, appender: Appender) -> int:
    """Release pending holds, at most `RELEASES_MAX`; return how many were released.

    Several processes may call this at the same time: releasing a hold twice is refused, which has no effect.
    """
    async with database.connection() as connection, connection.transaction():
        await connection.execute(INDEX_SCANS)
        holds = await connection.fetch(NEXT_HOLDS, RELEASES_MAX)
        if not holds:
            await connection.execute(FINISHED)
            return 0
    releases = [later_release(row["stream_id"], uuid7(), row["ended_by"], row["correlation_id"]) for row in holds]
    verdict = await appender.append(Request(releases, independent=True))
    return sum(isinstance(answer, Receipt) for answer in verdict)


async def find_pending_releases(connection: Connection) -> None:
    """Store the pending releases that follow from the log; needed after an import."""
    await connection.execute(FIND_PENDING)
