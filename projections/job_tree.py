"""Trees of jobs in the read model `agent_jobs`: the jobs below a job, in the order of the tree."""

from collections.abc import Collection
from uuid import UUID

from ledger.database import Connection, Database
from ledger.database.singleton import CHECKPOINT_TABLE, require_row
from ledger.domain.catalogue import names_of
from ledger.domain.errors import ReadTooLarge
from ledger.log.read import EventFilter, read_all
from projections.checkpoint import GROUP
from projections.fold import parent_of

# Bounded before it is sorted: rows are found level by level, and none is looked for once there are enough.
# `path` sorts the jobs depth first: each after its parent, and those with one parent by time.
TREE = """
WITH RECURSIVE tree AS (
    SELECT id, 0 AS depth, ARRAY[ROW (created_at, id)] AS path FROM agent_jobs
    WHERE id = $2 AND ($3::uuid[] IS NULL OR campaign_id = ANY ($3))
    UNION ALL
    SELECT child.id, tree.depth + 1, tree.path || ROW (child.created_at, child.id)
    FROM tree JOIN agent_jobs AS child ON child.parent_job_id = tree.id
    WHERE $3::uuid[] IS NULL OR child.campaign_id = ANY ($3)
), bounded AS MATERIALIZED (
    SELECT * FROM tree LIMIT $4
), shown AS (
    SELECT count(*) AS number, string_agg(row_to_json(job)::text, ',' ORDER BY path) AS jobs
    FROM bounded JOIN agent_jobs AS t USING (id) CROSS JOIN LATERAL (
        SELECT t.id, parent_job_id, depth, agent_type, agent_name, status, trim_scale(cost)::text AS cost,
            trim_scale(tree_cost)::text AS tree_cost, trim_scale(held)::text AS held, trim_scale(budget)::text AS budget
    ) AS job
)
SELECT position, number, jobs FROM ledger.projection_checkpoints, shown WHERE name = $1
"""

JOBS_BELOW = """
WITH RECURSIVE below AS (
    SELECT id FROM agent_jobs WHERE parent_job_id = $2
    UNION SELECT child.id FROM below JOIN agent_jobs AS child ON child.parent_job_id = below.id
)
SELECT position, ARRAY(SELECT id FROM below LIMIT $3) FROM ledger.projection_checkpoints WHERE name = $1
"""

OPENS_JOB = names_of(lambda event_type: event_type.category == "job" and event_type.opens_stream)


async def read_tree(
    connection: Connection, job_id: UUID, allowed_campaign_ids: Collection[UUID] | None, limit: int
) -> tuple[int, int, str]:
    """Read a job and the jobs below it.

    Args:
        connection: of the primary or a replica.
        job_id: of the job at the top.
        allowed_campaign_ids: only jobs of these campaigns; None: of any.
        limit: the most jobs.

    Returns:
        the position reflected, the number of jobs, and a JSON array of them, each after its parent; none if there is no
        such job.
    """
    allowed = None if allowed_campaign_ids is None else list(allowed_campaign_ids)
    row = require_row(await connection.fetchrow(TREE, GROUP, job_id, allowed, limit), CHECKPOINT_TABLE)
    return row[0], row[1], f"[{row[2] or ''}]"


async def find_jobs_below(database: Database, job_id: UUID, position: int, limit: int) -> list[UUID]:
    """Return the jobs below a job at a position, also those that are not in the read models yet.

    Args:
        database: the primary or a replica.
        job_id: of the job.
        position: of the log.
        limit: the most jobs.

    Returns:
        the ids of all jobs below that are not deleted; some may have been queued after the position.

    Raises:
        ReadTooLarge: there are more jobs than `limit` below it.
    """
    async with database.connection() as connection:
        folded, ids = require_row(await connection.fetchrow(JOBS_BELOW, GROUP, job_id, limit + 1), CHECKPOINT_TABLE)
    below = dict.fromkeys(ids)
    if folded < position:
        not_folded = EventFilter(after=folded, until=position, categories=("job",), types=OPENS_JOB)
        async for page in read_all(database, not_folded):
            for event in page:
                parent_id = parent_of(event)
                if parent_id == job_id or parent_id in below:
                    below[event.stream_id] = None
    if len(below) > limit:
        raise ReadTooLarge(f"more than {limit:,} jobs are below this one; `ledger replay` folds any number of them")
    return list(below)
