"""Amounts of 18 decimals, open kinds, and columns for usage, labels, traces and trees of jobs.

Each of the large tables is written anew once, with its indexes, under an exclusive lock. docs/upgrading.md has
the time, measured with up to 1,000,000 budget entries.

Revision: 0013, after 0012.
"""

from alembic import context, op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

ACCOUNTS = """
ALTER TABLE ledger.accounts
    DROP CONSTRAINT accounts_spent_check,
    ALTER COLUMN budget TYPE numeric(28, 18),
    ALTER COLUMN spent TYPE numeric(38, 18),
    ALTER COLUMN held TYPE numeric(38, 18);
ALTER TABLE ledger.holds
    DROP CONSTRAINT holds_amount_check,
    ALTER COLUMN amount TYPE numeric(28, 18),
    ADD CONSTRAINT holds_amount_check CHECK (amount >= 0)
"""

# A row is made in one pass, so what it takes from the log is looked up by functions: USING allows no subquery.
LOOKUPS = """
CREATE FUNCTION ledger.first_actor(p_category text, p_stream uuid) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT actor FROM ledger.events WHERE category = p_category AND stream_id = p_stream AND version = 1
$$;
CREATE FUNCTION ledger.sum_of_adjustments(p_stream uuid, p_position bigint) RETURNS numeric LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum((data ->> 'amount')::numeric), 0) FROM ledger.cost_events
    WHERE stream_id = p_stream AND type = 'cost.adjusted' AND position <= p_position
$$
"""
DROP_LOOKUPS = "DROP FUNCTION ledger.first_actor, ledger.sum_of_adjustments"

KIND = "~ '^[a-z][a-z0-9_.-]{0,62}$'"

READ_MODELS = f"""
ALTER TABLE campaigns
    DROP CONSTRAINT campaigns_spend_check,
    ALTER COLUMN budget DROP NOT NULL,
    ALTER COLUMN budget TYPE numeric(28, 18),
    ALTER COLUMN spend TYPE numeric(38, 18),
    ALTER COLUMN held TYPE numeric(38, 18),
    ALTER COLUMN revenue TYPE numeric(38, 18),
    ADD COLUMN labels jsonb DEFAULT '{{}}'::jsonb NOT NULL;

ALTER TABLE agent_jobs
    ADD COLUMN actor text,
    ADD COLUMN agent_name varchar(100),
    ADD COLUMN parent_job_id uuid,
    ADD COLUMN root_job_id uuid,
    ADD COLUMN tree_cost numeric(38, 18),
    ADD COLUMN labels jsonb DEFAULT '{{}}'::jsonb NOT NULL,
    ADD COLUMN trace_id varchar(32);
ALTER TABLE agent_jobs
    DROP CONSTRAINT agent_jobs_agent_type_check,
    DROP CONSTRAINT agent_jobs_cost_check,
    ALTER COLUMN agent_type TYPE varchar(63),
    ALTER COLUMN cost TYPE numeric(38, 18),
    ALTER COLUMN held TYPE numeric(38, 18),
    ALTER COLUMN budget TYPE numeric(28, 18),
    ALTER COLUMN progress TYPE numeric(28, 18),
    ALTER COLUMN actor TYPE text USING ledger.first_actor('job', id),
    ALTER COLUMN root_job_id TYPE uuid USING id,
    ALTER COLUMN tree_cost TYPE numeric(38, 18) USING cost;
ALTER TABLE agent_jobs
    ALTER COLUMN actor SET NOT NULL,
    ALTER COLUMN root_job_id SET NOT NULL,
    ALTER COLUMN tree_cost SET DEFAULT 0,
    ALTER COLUMN tree_cost SET NOT NULL,
    ADD CONSTRAINT agent_jobs_agent_type_check CHECK (agent_type {KIND}),
    ADD CONSTRAINT agent_jobs_parent_job_id_fkey
        FOREIGN KEY (parent_job_id) REFERENCES agent_jobs (id) ON DELETE SET NULL;

ALTER TABLE budget_entries
    ADD COLUMN actor text,
    ADD COLUMN input_tokens bigint,
    ADD COLUMN output_tokens bigint,
    ADD COLUMN cache_read_tokens bigint,
    ADD COLUMN cache_write_tokens bigint,
    ADD COLUMN reasoning_tokens bigint,
    ADD COLUMN usage jsonb,
    ADD COLUMN service_tier varchar(32),
    ADD COLUMN response_id varchar(255),
    ADD COLUMN labels jsonb DEFAULT '{{}}'::jsonb NOT NULL,
    ADD COLUMN trace_id varchar(32),
    ADD COLUMN adjusted numeric(38, 18),
    ADD COLUMN unpriced boolean DEFAULT false NOT NULL,
    ADD COLUMN price_position bigint;
UPDATE budget_entries AS entry SET campaign_id = NULL
WHERE campaign_id IS NOT NULL AND NOT EXISTS (SELECT FROM campaigns WHERE id = entry.campaign_id);
ALTER TABLE budget_entries
    DROP CONSTRAINT budget_entries_resource_type_check,
    DROP CONSTRAINT budget_entries_cost_check,
    DROP CONSTRAINT budget_entries_held_check,
    ALTER COLUMN resource_type TYPE varchar(63),
    ALTER COLUMN cost TYPE numeric(38, 18),
    ALTER COLUMN held TYPE numeric(28, 18),
    ALTER COLUMN model_used TYPE varchar(255),
    ALTER COLUMN provider TYPE varchar(255),
    ALTER COLUMN actor TYPE text USING ledger.first_actor('cost', id),
    ALTER COLUMN adjusted TYPE numeric(38, 18) USING ledger.sum_of_adjustments(id, position);
ALTER TABLE budget_entries
    ALTER COLUMN actor SET NOT NULL,
    ALTER COLUMN adjusted SET DEFAULT 0,
    ALTER COLUMN adjusted SET NOT NULL,
    ADD CONSTRAINT budget_entries_resource_type_check CHECK (resource_type {KIND}),
    ADD CONSTRAINT budget_entries_held_check
        CHECK (CASE status WHEN 'held' THEN held >= 0 AND cost = 0 ELSE held = 0 END),
    ADD CONSTRAINT budget_entries_campaign_id_fkey
        FOREIGN KEY (campaign_id) REFERENCES campaigns (id) ON DELETE SET NULL;

ALTER TABLE content_assets
    DROP CONSTRAINT content_assets_content_type_check,
    ALTER COLUMN content_type TYPE varchar(63),
    ADD CONSTRAINT content_assets_content_type_check CHECK (content_type {KIND});

CREATE INDEX campaigns_labels_idx ON campaigns USING gin (labels);
CREATE INDEX agent_jobs_actor_idx ON agent_jobs (actor);
CREATE INDEX agent_jobs_agent_name_idx ON agent_jobs (agent_name);
CREATE INDEX agent_jobs_labels_idx ON agent_jobs USING gin (labels);
CREATE INDEX agent_jobs_parent_job_id_idx ON agent_jobs (parent_job_id);
CREATE INDEX agent_jobs_root_job_id_idx ON agent_jobs (root_job_id);
CREATE INDEX agent_jobs_trace_id_idx ON agent_jobs (trace_id);
CREATE INDEX budget_entries_actor_idx ON budget_entries (actor);
CREATE INDEX budget_entries_labels_idx ON budget_entries USING gin (labels);
CREATE INDEX budget_entries_response_id_idx ON budget_entries (response_id);
CREATE INDEX budget_entries_trace_id_idx ON budget_entries (trace_id)
"""  # noqa: S608 (a fixed text)

# What an earlier release cannot read or store. `data` is looked at as text first: casting all of it would take longer.
REFUSE = """
DO $$
DECLARE
    found bigint;
BEGIN
    SELECT position INTO found FROM ledger.events AS event
    WHERE data::text ~ '[0-9][.][0-9]{11}|"budget"[:]null'
        OR data::text ~ '"(labels|usage|service_tier|response_id|original|agent_name|trace_id|span_id|started_at)":'
        OR data ->> 'agent_type' NOT IN ('seo_writer', 'email_marketer', 'social_media', 'analyst', 'optimizer')
        OR data ->> 'resource_type' NOT IN ('openai_api', 'web_search', 'file_search', 'image_generation', 'embedding',
            'llm_api', 'media', 'other')
        OR data ->> 'content_type' NOT IN ('blog', 'email', 'social', 'video_script', 'ad_copy', 'landing_page')
        OR length(data ->> 'model_used') > 100 OR length(data ->> 'provider') > 100
        OR length(text ->> 'error_message') > 10000 OR (data ->> 'expires_in')::bigint > 86400
        OR type = 'campaign.budget_changed' AND data -> 'budget' IS NULL
        OR type = 'job.completed' AND 'job.started' <> (
            SELECT before.type FROM ledger.job_events AS before
            WHERE before.stream_id = event.stream_id AND before.version < event.version
                AND before.type IN ('job.queued', 'job.started', 'job.retried')
            ORDER BY before.version DESC LIMIT 1
        )
    ORDER BY position LIMIT 1;
    IF found IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state', MESSAGE = 'the event at position ' || found
            || ' cannot be read by an earlier release; nothing was changed. Next: restore a backup from before the '
            || 'upgrade, or stay on this release';
    END IF;
END $$
"""

EARLIER_READ_MODELS = """
ALTER TABLE content_assets
    DROP CONSTRAINT content_assets_content_type_check,
    ALTER COLUMN content_type TYPE varchar(32),
    ADD CONSTRAINT content_assets_content_type_check
        CHECK (content_type IN ('blog', 'email', 'social', 'video_script', 'ad_copy', 'landing_page'));

ALTER TABLE budget_entries
    DROP CONSTRAINT budget_entries_campaign_id_fkey,
    DROP CONSTRAINT budget_entries_resource_type_check,
    DROP CONSTRAINT budget_entries_held_check,
    DROP COLUMN actor,
    DROP COLUMN input_tokens,
    DROP COLUMN output_tokens,
    DROP COLUMN cache_read_tokens,
    DROP COLUMN cache_write_tokens,
    DROP COLUMN reasoning_tokens,
    DROP COLUMN usage,
    DROP COLUMN service_tier,
    DROP COLUMN response_id,
    DROP COLUMN labels,
    DROP COLUMN trace_id,
    DROP COLUMN adjusted,
    DROP COLUMN unpriced,
    DROP COLUMN price_position,
    ALTER COLUMN resource_type TYPE varchar(32),
    ALTER COLUMN cost TYPE numeric(38, 10),
    ALTER COLUMN held TYPE numeric(20, 10),
    ALTER COLUMN model_used TYPE varchar(100),
    ALTER COLUMN provider TYPE varchar(100);
ALTER TABLE budget_entries
    ADD CONSTRAINT budget_entries_resource_type_check
        CHECK (resource_type IN ('openai_api', 'web_search', 'file_search',
            'image_generation', 'embedding', 'llm_api', 'media', 'other')),
    ADD CONSTRAINT budget_entries_cost_check CHECK (cost >= 0),
    ADD CONSTRAINT budget_entries_held_check
        CHECK (CASE status WHEN 'held' THEN held > 0 AND cost = 0 ELSE held = 0 END);

ALTER TABLE agent_jobs
    DROP CONSTRAINT agent_jobs_agent_type_check,
    DROP CONSTRAINT agent_jobs_parent_job_id_fkey,
    DROP COLUMN actor,
    DROP COLUMN agent_name,
    DROP COLUMN parent_job_id,
    DROP COLUMN root_job_id,
    DROP COLUMN tree_cost,
    DROP COLUMN labels,
    DROP COLUMN trace_id,
    ALTER COLUMN agent_type TYPE varchar(32),
    ALTER COLUMN cost TYPE numeric(38, 10),
    ALTER COLUMN held TYPE numeric(38, 10),
    ALTER COLUMN budget TYPE numeric(20, 10),
    ALTER COLUMN progress TYPE numeric(20, 10);
ALTER TABLE agent_jobs
    ADD CONSTRAINT agent_jobs_agent_type_check
        CHECK (agent_type IN ('seo_writer', 'email_marketer', 'social_media', 'analyst', 'optimizer')),
    ADD CONSTRAINT agent_jobs_cost_check CHECK (cost >= 0);

ALTER TABLE campaigns
    DROP COLUMN labels,
    ALTER COLUMN budget TYPE numeric(20, 10),
    ALTER COLUMN budget SET NOT NULL,
    ALTER COLUMN spend TYPE numeric(38, 10),
    ALTER COLUMN held TYPE numeric(38, 10),
    ALTER COLUMN revenue TYPE numeric(38, 10);
ALTER TABLE campaigns ADD CONSTRAINT campaigns_spend_check CHECK (spend >= 0)
"""

EARLIER_ACCOUNTS = """
ALTER TABLE ledger.holds
    DROP CONSTRAINT holds_amount_check,
    ALTER COLUMN amount TYPE numeric(20, 10),
    ADD CONSTRAINT holds_amount_check CHECK (amount > 0);
ALTER TABLE ledger.accounts
    ALTER COLUMN budget TYPE numeric(20, 10),
    ALTER COLUMN spent TYPE numeric(38, 10),
    ALTER COLUMN held TYPE numeric(38, 10),
    ADD CONSTRAINT accounts_spent_check CHECK (spent >= 0)
"""


def execute_all(statements: str) -> None:
    """Execute statements that are separated by semicolons at the ends of lines."""
    for statement in statements.strip().split(";\n"):
        op.execute(statement)


def upgrade() -> None:
    op.execute("SET LOCAL statement_timeout = 0")
    execute_all(ACCOUNTS)
    execute_all(LOOKUPS)
    execute_all(READ_MODELS)
    op.execute(DROP_LOOKUPS)


def downgrade() -> None:
    op.execute("SET LOCAL statement_timeout = 0")
    if context.get_revision_argument() is None:
        # Down to an empty database: what cannot be computed again is deleted too, if that is confirmed (env.py).
        op.execute("TRUNCATE campaigns, content_assets, agent_jobs, budget_entries, ledger.accounts, ledger.holds")
    else:
        op.execute(REFUSE)
    execute_all(EARLIER_READ_MODELS)
    execute_all(EARLIER_ACCOUNTS)
