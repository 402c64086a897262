"""Tables of the append engine: stored entry states, pending releases, a token in the head of the log.

`ledger.entries` keeps the folded state of every budget entry with more than one event, so that the cost of an append
does not depend on the history of the entry. A stored state may be behind its stream, because earlier releases do not
write it: `ledger.load_state` (revision 0006) also returns the events after it.

Revision: 0005, after 0004.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# The token is new at each move of the head. Position and time do not identify a head: after a failover that lost the
# end of the log, another history may reach the same position at the same time.
TABLES = """
ALTER TABLE ledger.log_head ADD COLUMN token uuid DEFAULT gen_random_uuid() NOT NULL;

CREATE TABLE ledger.entries (
    stream_id uuid NOT NULL,
    version bigint NOT NULL,
    state json NOT NULL,
    CONSTRAINT entries_pkey PRIMARY KEY (stream_id),
    CONSTRAINT entries_version_check CHECK (version > 0)
);

CREATE TABLE ledger.pending_releases (
    job_id uuid NOT NULL,
    position bigint NOT NULL,
    CONSTRAINT pending_releases_pkey PRIMARY KEY (job_id)
)
"""

# The state is [format, status, campaign_id, agent_job_id, cost, tokens_used, held, expires_at], as
# `ledger/log/entry_states.py` writes it. Amounts and times are strings in their canonical form.
STORE_ENTRIES = """
INSERT INTO ledger.entries (stream_id, version, state)
WITH entry AS (
    SELECT stream_id, max(version) AS version,
        max(version) FILTER (WHERE type IN ('cost.recorded', 'cost.settled')) AS charged,
        (array_agg(type ORDER BY version DESC) FILTER (WHERE type <> 'cost.adjusted'))[1] AS status_type
    FROM ledger.cost_events GROUP BY stream_id HAVING max(version) > 1
), summed AS (
    SELECT entry.stream_id, entry.version, entry.status_type,
        coalesce(sum(CASE
            WHEN event.version = entry.charged THEN (event.data ->> 'cost')::numeric
            WHEN event.type = 'cost.adjusted' THEN (event.data ->> 'amount')::numeric
        END), 0) AS cost,
        coalesce(sum(CASE
            WHEN event.version = entry.charged OR event.type = 'cost.adjusted'
                THEN coalesce((event.data ->> 'tokens_used')::numeric, 0)
        END), 0) AS tokens_used
    FROM entry JOIN ledger.cost_events AS event USING (stream_id)
    GROUP BY entry.stream_id, entry.version, entry.status_type
)
SELECT summed.stream_id, summed.version, json_build_array(
    1,
    CASE summed.status_type
        WHEN 'cost.recorded' THEN 'settled' WHEN 'cost.settled' THEN 'settled' WHEN 'cost.reserved' THEN 'held'
        WHEN 'cost.released' THEN 'released' WHEN 'cost.expired' THEN 'expired' ELSE 'denied'
    END,
    opening.campaign_id, opening.agent_job_id, trim_scale(summed.cost)::text, summed.tokens_used,
    '0',
    CASE WHEN opening.type = 'cost.reserved' THEN to_char(
        (opening.recorded_at + make_interval(secs => coalesce((opening.data ->> 'expires_in')::float8, 900)))
            AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'
    ) END
)
FROM summed JOIN ledger.cost_events AS opening ON opening.stream_id = summed.stream_id AND opening.version = 1
"""

GRANT = """
DO $$ BEGIN
    REVOKE ALL ON ledger.entries, ledger.pending_releases FROM PUBLIC;
    IF to_regrole('ledger_service') IS NOT NULL THEN
        GRANT SELECT, INSERT, UPDATE ON ledger.entries TO ledger_service;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ledger.pending_releases TO ledger_service;
    END IF;
END $$
"""

# New objects belong to the owner of the schema, if the user of the migration may hand them over.
HAND_OVER = """
DO $$
DECLARE
    name text;
    owner text := (SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'ledger');
BEGIN
    FOREACH name IN ARRAY ARRAY['TABLE ledger.entries', 'TABLE ledger.pending_releases']
    LOOP
        EXECUTE 'ALTER ' || name || ' OWNER TO ' || owner;
    END LOOP;
EXCEPTION WHEN insufficient_privilege THEN NULL;
END $$
"""


def upgrade() -> None:
    for statement in TABLES.strip().split(";\n"):
        op.execute(statement)
    op.execute(STORE_ENTRIES)
    op.execute(GRANT)
    op.execute(HAND_OVER)


def downgrade() -> None:
    op.execute("DROP TABLE ledger.pending_releases, ledger.entries")
    op.execute("ALTER TABLE ledger.log_head DROP COLUMN token")
