"""Tables of the transparency log: tiles of the Merkle tree and the last signed checkpoint.

lock_and_load also returns the schema version of each recorded event, so that a retry is recognized after an upgrade.

Revision: 0003, after 0002.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE ledger.log_tiles (
    level smallint NOT NULL,
    index bigint NOT NULL,
    hashes bytea NOT NULL,
    CONSTRAINT log_tiles_pkey PRIMARY KEY (level, index)
);

CREATE TABLE ledger.log_checkpoint (
    id smallint DEFAULT '1' NOT NULL,
    size bigint NOT NULL,
    root bytea NOT NULL,
    origin text,
    verifier_key text,
    note bytea,
    sealed_at timestamptz,
    refusal text,
    CONSTRAINT log_checkpoint_pkey PRIMARY KEY (id),
    CONSTRAINT log_checkpoint_id_check CHECK (id = 1)
);

INSERT INTO ledger.log_checkpoint (size, root) VALUES (0, sha256(''));
"""

# As in 0001, with `schema_version` after `category` in the recorded events; older releases can read the result too.
LOCK_AND_LOAD = """
CREATE OR REPLACE FUNCTION ledger.lock_and_load(
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
                correlation_id, causation_id, version, position, over_budget, category, schema_version
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
    op.execute(LOCK_AND_LOAD)


def downgrade() -> None:
    # The function stays: older releases ignore the additional column.
    op.execute("DROP TABLE ledger.log_checkpoint, ledger.log_tiles")
