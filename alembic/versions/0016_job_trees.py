"""Trees of jobs: the function load_state also loads the jobs above each job.

Earlier releases can use the new function, and earlier states of jobs, which have no ancestors, are read as before.

Revision: 0016, after 0015.
"""

from alembic import context, op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

# Replaces a part of the function, so that what other migrations changed in it stays.
REPLACE = """
DO $$
DECLARE
    definition text := pg_get_functiondef('ledger.load_state'::regproc);
    replaced text := replace(definition, $old${old}$old$, $new${new}$new$);
BEGIN
    IF replaced = definition THEN
        RAISE EXCEPTION 'the function ledger.load_state is not that of the migrations';
    END IF;
    EXECUTE replaced;
END $$
"""

# A job's state is [status, campaign_id, ...]: its campaign is loaded as well.
CAMPAIGNS = """
    SELECT loaded || coalesce(array_agg((state ->> 1)::uuid), '{}') INTO loaded
    FROM ledger.streams
    WHERE stream_id = ANY (loaded) AND category = 'job' AND state ->> 1 IS NOT NULL;
"""

# Its seventh element is the list of the jobs above it; a state of an earlier release has six.
CAMPAIGNS_AND_ANCESTORS = """
    SELECT loaded || coalesce(array_agg(DISTINCT related.id), '{}') INTO loaded
    FROM ledger.streams AS job
    CROSS JOIN LATERAL (
        SELECT (job.state ->> 1)::uuid AS id WHERE job.state ->> 1 IS NOT NULL
        UNION ALL SELECT ancestor::uuid FROM json_array_elements_text(job.state -> 6) AS ancestor
    ) AS related
    WHERE job.stream_id = ANY (loaded) AND job.category = 'job';
"""

# What an earlier release cannot read.
REFUSE = """
DO $$
DECLARE
    found bigint;
BEGIN
    SELECT position INTO found FROM ledger.job_events
    WHERE type IN ('job.recorded', 'job.budget_changed') OR data::text ~ '"(parent_job_id|started_at)":'
    ORDER BY position LIMIT 1;
    IF found IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state', MESSAGE = 'the event at position ' || found
            || ' cannot be read by an earlier release; nothing was changed. Next: restore a backup from before the '
            || 'upgrade, or stay on this release';
    END IF;
END $$
"""

EARLIER_STATES = """
UPDATE ledger.streams SET state = (state::jsonb - 7 - 6)::json WHERE category = 'job' AND json_array_length(state) > 6
"""


def upgrade() -> None:
    op.execute(REPLACE.format(old=CAMPAIGNS, new=CAMPAIGNS_AND_ANCESTORS))


def downgrade() -> None:
    if context.get_revision_argument() is not None:
        # Down to an empty database, the events are deleted too, if that is confirmed (env.py).
        op.execute(REFUSE)
    op.execute(EARLIER_STATES)
    op.execute(REPLACE.format(old=CAMPAIGNS_AND_ANCESTORS, new=CAMPAIGNS))
