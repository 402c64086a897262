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
# `ledger/log/entry_states.py` writes it. Amounts and times are strings in their canonical form. An entry is charged
# once, by `cost.recorded` or `cost.settled`; an entry with more than one event is not held.
STORE_ENTRIES = """
INSERT INTO ledger.entries (stream_id, version, state)
WITH entry AS (
    SELECT stream_id, max(version) AS version,
        (array_agg(type ORDER BY version DESC) FILTER (WHERE type <> 'cost.adjusted'))[1] AS status_type,
        coalesce(sum((data ->> CASE type WHEN 'cost.adjusted' THEN 'amount' ELSE 'cost' END)::numeric), 0) AS cost,
        coalesce(sum((data ->> 'tokens_used')::bigint), 0) AS tokens_used
    FROM ledger.cost_events GROUP BY stream_id HAVING max(version) > 1
)
SELECT stream_id, entry.version, json_build_array(
    1,
    CASE status_type WHEN 'cost.released' THEN 'released' WHEN 'cost.expired' THEN 'expired' ELSE 'settled' END,
    campaign_id, agent_job_id, trim_scale(cost)::text, tokens_used,
    '0',
    CASE type WHEN 'cost.reserved' THEN
        to_char(expires_at, 'YYYY-MM-DD"T"HH24:MI:SS')
            || CASE to_char(expires_at, 'US') WHEN '000000' THEN '' ELSE to_char(expires_at, '.US') END || 'Z'
    END
)
FROM entry JOIN ledger.cost_events AS first USING (stream_id),
LATERAL (
    SELECT (recorded_at + make_interval(secs => coalesce((data ->> 'expires_in')::float8, 900))) AT TIME ZONE 'UTC'
) AS hold (expires_at)
WHERE first.version = 1
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
