"""Functions of the append engine: load states in one snapshot, compare-and-swap, store states.

The function of earlier releases, `ledger.lock_and_load`, stays, so that they can append during an upgrade.

Revision: 0006, after 0005.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# The function is STABLE and called by one statement, so it has one snapshot: the head and all states are of the same
# moment. Sequential scans, hash joins and merge joins are off: the plans are made, and cached, while the
# tables are small, and would read whole tables later.
# `p_entries` are the cost streams to load, `p_probe_…` the identities to look up in other streams. An entry is its
# stored state and the events after that state; without a stored state, all its events.
# OFFSET 0: a plain join may search the index by the version alone, and so read the events of all long entries.
# A job's state is [status, campaign_id, ...]: its campaign is loaded as well.
LOAD_STATE = """
CREATE FUNCTION ledger.load_state(
    p_streams uuid[], p_entries uuid[], p_entry_events uuid[],
    p_probe_categories text[], p_probe_streams uuid[], p_probe_events uuid[],
    p_ending_jobs uuid[], p_holds_max integer, p_now timestamptz,
    OUT head_position bigint, OUT head_recorded_at timestamptz, OUT head_token uuid, OUT append_at timestamptz,
    OUT loaded uuid[], OUT heads text, OUT known text, OUT entries text, OUT entry_events text, OUT balances text,
    OUT open_holds text
) LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET timezone = 'UTC' AS $$
DECLARE
    found_entries uuid[];
    more_known text;
BEGIN
    SELECT position, recorded_at, token, greatest(recorded_at, coalesce(p_now, clock_timestamp()))
    INTO head_position, head_recorded_at, head_token, append_at
    FROM ledger.log_head;
    loaded := p_streams;

    IF cardinality(p_entries) > 0 THEN
        SELECT json_agg(json_build_array(wanted.id, last.version, stored.version, stored.state))::text,
            array_agg(wanted.id),
            loaded || array_remove(array_agg(DISTINCT last.campaign_id), NULL)
                || array_remove(array_agg(DISTINCT last.agent_job_id), NULL)
        INTO entries, found_entries, loaded
        FROM unnest(p_entries) AS wanted (id)
        CROSS JOIN LATERAL (
            SELECT version, campaign_id, agent_job_id FROM ledger.cost_events
            WHERE stream_id = wanted.id ORDER BY version DESC LIMIT 1
        ) AS last
        LEFT JOIN ledger.entries AS stored ON stored.stream_id = wanted.id;
        IF entries IS NOT NULL THEN
            SELECT json_agg(json_build_array(
                    event.stream_id, event.version, type, schema_version, data::text, text::text, campaign_id,
                    agent_job_id, recorded_at
                ) ORDER BY position)::text
            INTO entry_events
            FROM unnest(found_entries) AS wanted (id)
            LEFT JOIN ledger.entries AS stored ON stored.stream_id = wanted.id
            CROSS JOIN LATERAL (
                SELECT * FROM ledger.cost_events
                WHERE stream_id = wanted.id AND version > coalesce(stored.version, 0) OFFSET 0
            ) AS event;
            SELECT json_agg(json_build_array(
                    category, stream_id, id, type, data::text, text::text,
                    text_commitment IS NOT NULL AND text IS NULL, occurred_at, correlation_id, causation_id, version,
                    position, over_budget, schema_version
                ))::text
            INTO known
            FROM ledger.cost_events WHERE stream_id = ANY (found_entries) AND id = ANY (p_entry_events);
        END IF;
    END IF;

    IF cardinality(p_probe_streams) > 0 THEN
        SELECT json_agg(json_build_array(
                event.category, event.stream_id, event.id, type, data::text, text::text,
                text_commitment IS NOT NULL AND text IS NULL, occurred_at, correlation_id, causation_id, version,
                position, over_budget, schema_version
            ))::text
        INTO more_known
        FROM unnest(p_probe_categories, p_probe_streams, p_probe_events) AS wanted (category, stream_id, id)
        JOIN ledger.events AS event
            ON event.category = wanted.category AND event.stream_id = wanted.stream_id AND event.id = wanted.id;
        IF more_known IS NOT NULL THEN
            known := CASE WHEN known IS NULL THEN more_known
                ELSE left(known, -1) || ',' || substr(more_known, 2) END;
        END IF;
    END IF;

    IF cardinality(p_ending_jobs) > 0 THEN
        SELECT json_agg(json_build_array(
                hold.stream_id, amount, campaign_id, agent_job_id, expires_at, stored.version, stored.state
            ))::text,
            loaded || array_remove(array_agg(DISTINCT campaign_id), NULL)
        INTO open_holds, loaded
        FROM (
            SELECT * FROM ledger.holds WHERE agent_job_id = ANY (p_ending_jobs) ORDER BY agent_job_id LIMIT p_holds_max
        ) AS hold
        LEFT JOIN ledger.entries AS stored ON stored.stream_id = hold.stream_id;
    END IF;

    SELECT loaded || coalesce(array_agg((state ->> 1)::uuid), '{}') INTO loaded
    FROM ledger.streams
    WHERE stream_id = ANY (loaded) AND category = 'job' AND state ->> 1 IS NOT NULL;

    SELECT json_agg(json_build_array(category, stream_id, version, state))::text INTO heads
    FROM ledger.streams WHERE stream_id = ANY (loaded);

    SELECT json_agg(json_build_array(scope, account_id, currency, budget, spent, held))::text INTO balances
    FROM ledger.accounts WHERE account_id = ANY (loaded);
END $$;
"""

# Lock first, then load, in two statements: the snapshot of a single one would be older than the wait for the lock, and
# the balances would be outdated.
LOCK_AND_LOAD_STATE = """
CREATE FUNCTION ledger.lock_and_load_state(
    p_streams uuid[], p_entries uuid[], p_entry_events uuid[],
    p_probe_categories text[], p_probe_streams uuid[], p_probe_events uuid[],
    p_ending_jobs uuid[], p_holds_max integer, p_now timestamptz,
    OUT head_position bigint, OUT head_recorded_at timestamptz, OUT head_token uuid, OUT append_at timestamptz,
    OUT loaded uuid[], OUT heads text, OUT known text, OUT entries text, OUT entry_events text, OUT balances text,
    OUT open_holds text
) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM ledger.log_head FOR UPDATE;
    SELECT * INTO head_position, head_recorded_at, head_token, append_at, loaded, heads, known, entries, entry_events,
        balances, open_holds
    FROM ledger.load_state(p_streams, p_entries, p_entry_events, p_probe_categories, p_probe_streams, p_probe_events,
        p_ending_jobs, p_holds_max, p_now);
END $$;
"""

# Stores the changed states of a group, and returns true. Each argument is an array of objects, or NULL for none.
# Existing rows are updated rather than upserted, which takes PostgreSQL half the time.
STORE_STATES = """
CREATE FUNCTION ledger.store_states(
    p_new_streams json, p_streams json, p_entries json, p_new_accounts json, p_accounts json, p_new_holds json,
    p_closed_holds uuid[], p_pending_releases json
) RETURNS boolean LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    IF p_new_streams IS NOT NULL THEN
        INSERT INTO ledger.streams (stream_id, category, version, state)
        SELECT stream_id, category, version, state
        FROM json_to_recordset(p_new_streams) AS sent (stream_id uuid, category text, version bigint, state json);
    END IF;
    IF p_streams IS NOT NULL THEN
        UPDATE ledger.streams AS stream SET version = sent.version, state = sent.state
        FROM json_to_recordset(p_streams) AS sent (stream_id uuid, category text, version bigint, state json)
        WHERE stream.stream_id = sent.stream_id AND stream.category = sent.category;
    END IF;
    IF p_entries IS NOT NULL THEN
        INSERT INTO ledger.entries (stream_id, version, state)
        SELECT stream_id, version, state
        FROM json_to_recordset(p_entries) AS sent (stream_id uuid, version bigint, state json)
        ON CONFLICT (stream_id) DO UPDATE SET version = excluded.version, state = excluded.state;
    END IF;
    IF p_new_accounts IS NOT NULL THEN
        INSERT INTO ledger.accounts (account_id, scope, currency, budget, spent, held)
        SELECT account_id, scope, currency, budget, spent, held
        FROM json_to_recordset(p_new_accounts)
            AS sent (account_id uuid, scope text, currency text, budget numeric, spent numeric, held numeric);
    END IF;
    IF p_accounts IS NOT NULL THEN
        UPDATE ledger.accounts AS account SET budget = sent.budget, spent = sent.spent, held = sent.held
        FROM json_to_recordset(p_accounts)
            AS sent (account_id uuid, scope text, budget numeric, spent numeric, held numeric)
        WHERE account.account_id = sent.account_id AND account.scope = sent.scope;
    END IF;
    IF p_new_holds IS NOT NULL THEN
        INSERT INTO ledger.holds (stream_id, amount, campaign_id, agent_job_id, expires_at)
        SELECT stream_id, amount, campaign_id, agent_job_id, expires_at
        FROM json_to_recordset(p_new_holds)
            AS sent (stream_id uuid, amount numeric, campaign_id uuid, agent_job_id uuid, expires_at timestamptz);
    END IF;
    IF p_closed_holds IS NOT NULL THEN
        DELETE FROM ledger.holds WHERE stream_id = ANY (p_closed_holds);
    END IF;
    IF p_pending_releases IS NOT NULL THEN
        INSERT INTO ledger.pending_releases (job_id, position)
        SELECT job_id, position FROM json_to_recordset(p_pending_releases) AS sent (job_id uuid, position bigint)
        ON CONFLICT (job_id) DO UPDATE SET position = excluded.position;
    END IF;
    RETURN true;
END $$
"""

# The compare-and-swap: move the head if it is still the expected one, and then insert the events; false if it is not.
# Each event has one-letter keys: c category, s stream_id, v version, i id, t type, n schema_version, o occurred_at,
# a actor, p campaign_id, j agent_job_id, r correlation_id, e causation_id, d data, x text, z text_salt,
# y text_commitment, b over_budget. What is usual is left out. `data` and `text` are JSON strings, so that the bytes of
# the canonical JSON are stored as they are.
APPEND_EVENTS = """
CREATE FUNCTION ledger.append_events(
    p_position bigint, p_recorded_at timestamptz, p_token uuid,
    p_expected_position bigint, p_expected_recorded_at timestamptz, p_expected_token uuid,
    p_events json
) RETURNS boolean LANGUAGE plpgsql SET lock_timeout = '10s' AS $$
BEGIN
    UPDATE ledger.log_head SET position = p_position, recorded_at = p_recorded_at, token = p_token
    WHERE position = p_expected_position AND recorded_at = p_expected_recorded_at AND token = p_expected_token;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO ledger.events (
        position, category, stream_id, version, id, type, schema_version, occurred_at, recorded_at, actor, campaign_id,
        agent_job_id, correlation_id, causation_id, data, text, text_salt, text_commitment, over_budget, size
    )
    SELECT p_expected_position + number, c, s, coalesce(v, 1), coalesce(i, s), t, coalesce(n, 1),
        coalesce(o, p_recorded_at), p_recorded_at, a, p, j, r, e, d::json, x::json, decode(z, 'base64'), y, b,
        length(d) + coalesce(length(x), 0)
    FROM ROWS FROM (json_to_recordset(p_events) AS (
        c text, s uuid, v bigint, i uuid, t text, n smallint, o timestamptz, a text, p uuid, j uuid, r uuid, e uuid,
        d text, x text, z text, y text, b text[]
    )) WITH ORDINALITY AS sent (c, s, v, i, t, n, o, a, p, j, r, e, d, x, z, y, b, number);
    RETURN true;
END $$
"""

GRANT_SERVICE = """
    IF to_regrole('ledger_service') IS NOT NULL THEN
        GRANT SELECT, INSERT, UPDATE ON ledger.entries TO ledger_service;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ledger.pending_releases TO ledger_service;
        GRANT EXECUTE ON FUNCTION ledger.load_state, ledger.lock_and_load_state, ledger.store_states,
            ledger.append_events TO ledger_service;
    END IF;
"""

# `ledger.grant_roles` is called when the roles are created after the migration. The new objects come first, since
# migration 0004's part may hand them over to another owner.
GRANT_ROLES = f"""
CREATE PROCEDURE ledger.grant_roles() LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    {GRANT_SERVICE}
    CALL ledger.grant_roles_0004();
END $$
"""

GRANT_NOW = f"""
DO $$ BEGIN
    REVOKE ALL ON FUNCTION ledger.load_state, ledger.lock_and_load_state, ledger.store_states, ledger.append_events
        FROM PUBLIC;
    {GRANT_SERVICE}
END $$
"""

# New objects belong to the owner of the schema, if the user of the migration may hand them over.
HAND_OVER = """
DO $$
DECLARE
    name text;
    owner text := (SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'ledger');
BEGIN
    FOREACH name IN ARRAY ARRAY['FUNCTION ledger.load_state', 'FUNCTION ledger.lock_and_load_state',
        'FUNCTION ledger.store_states', 'FUNCTION ledger.append_events']
    LOOP
        EXECUTE 'ALTER ' || name || ' OWNER TO ' || owner;
    END LOOP;
EXCEPTION WHEN insufficient_privilege THEN NULL;
END $$
"""


def upgrade() -> None:
    op.execute(LOAD_STATE)
    op.execute(LOCK_AND_LOAD_STATE)
    op.execute(STORE_STATES)
    op.execute(APPEND_EVENTS)
    op.execute("ALTER PROCEDURE ledger.grant_roles() RENAME TO grant_roles_0004")
    op.execute(GRANT_ROLES)
    op.execute("REVOKE ALL ON PROCEDURE ledger.grant_roles FROM PUBLIC")
    op.execute(GRANT_NOW)
    op.execute(HAND_OVER)


def downgrade() -> None:
    op.execute("DROP PROCEDURE ledger.grant_roles()")
    op.execute("ALTER PROCEDURE ledger.grant_roles_0004() RENAME TO grant_roles")
    op.execute("DROP FUNCTION ledger.append_events")
    op.execute("DROP FUNCTION ledger.store_states")
    op.execute("DROP FUNCTION ledger.lock_and_load_state")
    op.execute("DROP FUNCTION ledger.load_state")
