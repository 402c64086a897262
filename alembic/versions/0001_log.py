"""Tables of the log: append-only events, streams, accounts, holds; the function lock_and_load.

Revision: 0001, the first one.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

PARTITIONS = ("campaign_events", "content_events", "job_events", "cost_events", "ledger_events")

TABLES = """
CREATE SCHEMA ledger;

CREATE TABLE ledger.accounts (
    account_id uuid NOT NULL,
    scope text NOT NULL,
    currency text NOT NULL,
    budget numeric(20, 10),
    spent numeric(38, 10) NOT NULL,
    held numeric(38, 10) NOT NULL,
    CONSTRAINT accounts_pkey PRIMARY KEY (account_id, scope),
    CONSTRAINT accounts_scope_check CHECK (scope IN ('campaign', 'job')),
    CONSTRAINT accounts_budget_check CHECK (budget >= 0),
    CONSTRAINT accounts_spent_check CHECK (spent >= 0),
    CONSTRAINT accounts_held_check CHECK (held >= 0)
);

CREATE TABLE ledger.api_keys (
    id text NOT NULL,
    name text NOT NULL,
    role text NOT NULL,
    secret_sha256 bytea NOT NULL,
    campaign_ids uuid[],
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz,
    CONSTRAINT api_keys_pkey PRIMARY KEY (id),
    CONSTRAINT api_keys_name_key UNIQUE (name),
    CONSTRAINT api_keys_name_check CHECK (length(name) BETWEEN 1 AND 100),
    CONSTRAINT api_keys_role_check CHECK (role IN ('viewer', 'agent', 'manager', 'auditor', 'admin'))
);

CREATE TABLE ledger.events (
    position bigint NOT NULL,
    category text NOT NULL,
    stream_id uuid NOT NULL,
    version bigint NOT NULL,
    id uuid NOT NULL,
    type text NOT NULL,
    schema_version smallint NOT NULL,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    actor text NOT NULL,
    campaign_id uuid,
    agent_job_id uuid,
    correlation_id uuid,
    causation_id uuid,
    data json NOT NULL,
    text json,
    text_salt bytea,
    text_commitment text,
    over_budget text[],
    size integer NOT NULL,
    CONSTRAINT events_pkey PRIMARY KEY (stream_id, version, category),
    CONSTRAINT events_stream_id_id_category_key UNIQUE (stream_id, id, category),
    CONSTRAINT events_position_check CHECK (position > 0),
    CONSTRAINT events_version_check CHECK (version > 0),
    CONSTRAINT events_salt_check CHECK ((text IS NULL) = (text_salt IS NULL)),
    CONSTRAINT events_commitment_check CHECK (text IS NULL OR text_commitment IS NOT NULL)
) PARTITION BY LIST (category);
CREATE INDEX events_agent_job_id_position_idx ON ledger.events (agent_job_id, position) WHERE agent_job_id IS NOT NULL;
CREATE INDEX events_campaign_id_position_idx ON ledger.events (campaign_id, position) WHERE campaign_id IS NOT NULL;
CREATE INDEX events_position_idx ON ledger.events (position);

CREATE TABLE ledger.holds (
    stream_id uuid NOT NULL,
    amount numeric(20, 10) NOT NULL,
    campaign_id uuid,
    agent_job_id uuid,
    expires_at timestamptz NOT NULL,
    CONSTRAINT holds_pkey PRIMARY KEY (stream_id),
    CONSTRAINT holds_amount_check CHECK (amount > 0)
);
CREATE INDEX holds_agent_job_id_idx ON ledger.holds (agent_job_id) WHERE agent_job_id IS NOT NULL;
CREATE INDEX holds_expires_at_idx ON ledger.holds (expires_at);

CREATE TABLE ledger.log_head (
    id smallint DEFAULT '1' NOT NULL,
    position bigint NOT NULL,
    recorded_at timestamptz NOT NULL,
    CONSTRAINT log_head_pkey PRIMARY KEY (id),
    CONSTRAINT log_head_id_check CHECK (id = 1)
);

CREATE TABLE ledger.projection_checkpoints (
    name text NOT NULL,
    position bigint NOT NULL,
    updated_at timestamptz NOT NULL,
    status text NOT NULL,
    last_error json,
    CONSTRAINT projection_checkpoints_pkey PRIMARY KEY (name),
    CONSTRAINT projection_checkpoints_status_check CHECK (status IN ('running', 'failing', 'paused'))
);

CREATE TABLE ledger.streams (
    stream_id uuid NOT NULL,
    category text NOT NULL,
    version bigint NOT NULL,
    state json NOT NULL,
    CONSTRAINT streams_pkey PRIMARY KEY (stream_id, category),
    CONSTRAINT streams_category_check CHECK (category IN ('campaign', 'content', 'job'))
);

CREATE TABLE ledger.campaign_events PARTITION OF ledger.events FOR VALUES IN ('campaign');
CREATE TABLE ledger.content_events PARTITION OF ledger.events FOR VALUES IN ('content');
CREATE TABLE ledger.job_events PARTITION OF ledger.events FOR VALUES IN ('job');
CREATE TABLE ledger.cost_events PARTITION OF ledger.events FOR VALUES IN ('cost');
CREATE TABLE ledger.ledger_events PARTITION OF ledger.events FOR VALUES IN ('ledger');

INSERT INTO ledger.log_head (position, recorded_at) VALUES (0, '-infinity');
INSERT INTO ledger.projection_checkpoints (name, position, updated_at, status)
VALUES ('read_models', 0, now(), 'running');
"""

# No percent sign in these texts: `upgrade --sql` would double it.
# Events never change, with one exception: an erasure sets text and salt to NULL and leaves all other columns unchanged.
REFUSE_CHANGE = """
CREATE FUNCTION ledger.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE'
        AND OLD.text IS NOT NULL AND NEW.text IS NULL AND NEW.text_salt IS NULL
        AND NEW.position = OLD.position
        AND NEW.category = OLD.category
        AND NEW.stream_id = OLD.stream_id
        AND NEW.version = OLD.version
        AND NEW.id = OLD.id
        AND NEW.type = OLD.type
        AND NEW.schema_version = OLD.schema_version
        AND NEW.occurred_at = OLD.occurred_at
        AND NEW.recorded_at = OLD.recorded_at
        AND NEW.actor = OLD.actor
        AND NEW.campaign_id IS NOT DISTINCT FROM OLD.campaign_id
        AND NEW.agent_job_id IS NOT DISTINCT FROM OLD.agent_job_id
        AND NEW.correlation_id IS NOT DISTINCT FROM OLD.correlation_id
        AND NEW.causation_id IS NOT DISTINCT FROM OLD.causation_id
        AND NEW.data::text = OLD.data::text
        AND NEW.text_commitment = OLD.text_commitment
        AND NEW.over_budget IS NOT DISTINCT FROM OLD.over_budget
        AND NEW.size = OLD.size
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION USING
        MESSAGE = 'ledger events are append-only: ' || TG_OP || ' on ' || TG_TABLE_NAME || ' refused',
        ERRCODE = 'restrict_violation',
        HINT = 'Correct a mistake with a new event.';
END $$;
"""

APPEND_ONLY = """
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ledger.events
FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();
"""

# A TRUNCATE trigger of the parent does not apply to its partitions: each partition needs one.
NO_TRUNCATE = """
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON ledger.{table}
FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
"""

# A separate statement takes the lock before the loads: with a single statement, the snapshot would be older than the
# wait for the lock, and the balances stale. Sequential scans are disabled because plans are cached while the tables
# are small, and would be kept after they have grown. The state of a job is [status, campaign_id, ...]: its campaign is
# loaded with it. The time zone is UTC because some historical offsets have seconds, which RFC 3339 does not allow.
LOCK_AND_LOAD = """
CREATE FUNCTION ledger.lock_and_load(
    p_streams uuid[], p_events uuid[], p_entries uuid[], p_ending_jobs uuid[], p_now timestamptz,
    OUT head_position bigint, OUT append_at timestamptz,
    OUT heads text, OUT known text, OUT entries text, OUT balances text, OUT open_holds text
) LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET timezone = 'UTC' AS $$
DECLARE
    ids uuid[] := p_streams;
BEGIN
    SELECT position, greatest(recorded_at, coalesce(p_now, clock_timestamp())) INTO head_position, append_at
    FROM ledger.log_head FOR UPDATE;

    IF cardinality(p_entries) > 0 THEN
        SELECT json_agg(json_build_array(
                stream_id, id, type, data::text, text::text, text_commitment IS NOT NULL AND text IS NULL, occurred_at,
                correlation_id, causation_id, version, position, over_budget, category, schema_version, campaign_id,
                agent_job_id, recorded_at
            ) ORDER BY position)::text,
            ids || array_remove(array_agg(DISTINCT campaign_id), NULL)
                || array_remove(array_agg(DISTINCT agent_job_id), NULL)
        INTO entries, ids
        FROM ledger.cost_events WHERE stream_id = ANY (p_entries);
    END IF;

    IF cardinality(p_events) > 0 THEN
        SELECT json_agg(json_build_array(
                stream_id, id, type, data::text, text::text, text_commitment IS NOT NULL AND text IS NULL, occurred_at,
                correlation_id, causation_id, version, position, over_budget, category
            ))::text
        INTO known
        FROM ledger.events
        WHERE stream_id = ANY (p_streams) AND id = ANY (p_events) AND category IN ('campaign', 'content', 'job');
    END IF;

    IF cardinality(p_ending_jobs) > 0 THEN
        SELECT json_agg(json_build_array(stream_id, amount, campaign_id, agent_job_id, expires_at))::text,
            ids || array_remove(array_agg(DISTINCT campaign_id), NULL)
        INTO open_holds, ids
        FROM ledger.holds WHERE agent_job_id = ANY (p_ending_jobs);
    END IF;

    SELECT ids || array_agg((state ->> 1)::uuid) INTO ids
    FROM ledger.streams
    WHERE stream_id = ANY (ids) AND category = 'job' AND state ->> 1 IS NOT NULL;

    SELECT json_agg(json_build_array(category, stream_id, version, state))::text INTO heads
    FROM ledger.streams WHERE stream_id = ANY (ids);

    SELECT json_agg(json_build_array(scope, account_id, currency, budget, spent, held))::text INTO balances
    FROM ledger.accounts WHERE account_id = ANY (ids);

END $$;
"""


def upgrade() -> None:
    for statement in TABLES.strip().split(";\n"):
        op.execute(statement)
    op.execute(REFUSE_CHANGE)
    op.execute(APPEND_ONLY)
    for table in ("events", *PARTITIONS):
        op.execute(NO_TRUNCATE.format(table=table))
    op.execute(LOCK_AND_LOAD)


def downgrade() -> None:
    op.execute("DROP SCHEMA ledger CASCADE")
