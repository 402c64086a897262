"""Stored entries in format 2, with provider, model, tier, resource, currency, labels; extended holds.

Earlier releases can read format 2. What they write in format 1 is not stored: a stored state may be behind its stream,
and an append folds the events after it.

Revision: 0015, after 0014.
"""

from alembic import context, op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

# CREATE TRIGGER waits for running appends and blocks new ones of existing entries until the migration has ended.
SKIP_FORMAT_1 = (
    """
    CREATE FUNCTION ledger.skip_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$
    """,
    """
    CREATE TRIGGER skip_format_1 BEFORE INSERT OR UPDATE ON ledger.entries
    FOR EACH ROW WHEN (left(NEW.state::text, 3) = '[1,') EXECUTE FUNCTION ledger.skip_row()
    """,
    "REVOKE ALL ON FUNCTION ledger.skip_row FROM PUBLIC",
    """
    DO $$ BEGIN
        EXECUTE 'ALTER FUNCTION ledger.skip_row OWNER TO '
            || (SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'ledger');
    EXCEPTION WHEN insufficient_privilege THEN NULL;
    END $$
    """,
)

# The state is [format, status, campaign_id, agent_job_id, cost, tokens_used, held, expires_at, is_credit, unpriced,
# currency, provider, model_used, service_tier, resource_type, labels], as `ledger/log/entry_states.py` writes it.
# An entry is charged once, by `cost.recorded` or `cost.settled`; an entry with more than one event is not held.
# It reads all cost events; docs/upgrading.md has its time.
STORE_ENTRIES = """
INSERT INTO ledger.entries (stream_id, version, state)
WITH event AS (
    SELECT *, CASE WHEN type <> 'cost.reserved' THEN coalesce(
        (data ->> 'tokens_used')::bigint,
        coalesce((data -> 'usage' ->> 'input_tokens')::bigint, 0)
            + coalesce((data -> 'usage' ->> 'output_tokens')::bigint, 0)
    ) END AS tokens
    FROM ledger.cost_events
), entry AS (
    SELECT stream_id, max(version) AS version,
        (array_agg(type ORDER BY version DESC) FILTER (WHERE type <> 'cost.adjusted'))[1] AS status_type,
        coalesce(sum((data ->> CASE type WHEN 'cost.adjusted' THEN 'amount' ELSE 'cost' END)::numeric), 0) AS cost,
        coalesce(sum(tokens), 0) AS tokens_used,
        (array_agg(data) FILTER (WHERE type = 'cost.settled'))[1] AS settled
    FROM event GROUP BY stream_id HAVING max(version) > 1
)
SELECT stream_id, entry.version, json_build_array(
    2,
    CASE status_type WHEN 'cost.released' THEN 'released' WHEN 'cost.expired' THEN 'expired' ELSE 'settled' END,
    campaign_id, agent_job_id, trim_scale(cost)::text, tokens_used,
    '0',
    CASE type WHEN 'cost.reserved' THEN
        to_char(expires_at, 'YYYY-MM-DD"T"HH24:MI:SS')
            || CASE to_char(expires_at, 'US') WHEN '000000' THEN '' ELSE to_char(expires_at, '.US') END || 'Z'
    END,
    false, false, data ->> 'currency',
    coalesce(settled ->> 'provider', data ->> 'provider'),
    coalesce(settled ->> 'model_used', data ->> 'model_used'),
    coalesce(settled ->> 'service_tier', data ->> 'service_tier'),
    data ->> 'resource_type',
    nullif(coalesce((data -> 'labels')::jsonb, '{}') || coalesce((settled -> 'labels')::jsonb, '{}'), '{}')
)
FROM entry JOIN ledger.cost_events AS first USING (stream_id),
LATERAL (
    SELECT (recorded_at + make_interval(secs => coalesce((data ->> 'expires_in')::float8, 900))) AT TIME ZONE 'UTC'
) AS hold (expires_at)
WHERE first.version = 1
"""

STORE_FORMAT_1 = """
UPDATE ledger.entries SET state = json_build_array(
    1, state -> 1, state -> 2, state -> 3, state -> 4, state -> 5, state -> 6, state -> 7
)
"""

# Replaces a part of a function, so that what other migrations changed in it stays.
REPLACE_IN_FUNCTION = """
DO $$
DECLARE
    definition text := pg_get_functiondef('ledger.{function}'::regproc);
    replaced text := replace(definition, $old${old}$old$, $new${new}$new$);
BEGIN
    IF replaced = definition THEN
        RAISE EXCEPTION 'the function ledger.{function} is not that of the migrations';
    END IF;
    EXECUTE replaced;
END $$
"""

# Of a hold whose job ends, also the events after its stored state are loaded: its reservation, if there is none.
HOLD_WITHOUT_EVENTS = """amount, campaign_id, agent_job_id, expires_at, stored.version, stored.state
            ))::text,"""

HOLD_WITH_EVENTS = """amount, campaign_id, agent_job_id, expires_at, stored.version, stored.state,
                (
                    SELECT json_agg(json_build_array(
                        event.stream_id, event.version, event.type, event.schema_version, event.data::text,
                        event.text::text, event.campaign_id, event.agent_job_id, event.recorded_at
                    ) ORDER BY event.version)
                    FROM ledger.cost_events AS event
                    WHERE event.stream_id = hold.stream_id AND event.version > coalesce(stored.version, 0)
                )
            ))::text,"""

INSERT_HOLDS = """IF p_new_holds IS NOT NULL THEN
        INSERT INTO ledger.holds (stream_id, amount, campaign_id, agent_job_id, expires_at)
        SELECT stream_id, amount, campaign_id, agent_job_id, expires_at
        FROM json_to_recordset(p_new_holds)
            AS sent (stream_id uuid, amount numeric, campaign_id uuid, agent_job_id uuid, expires_at timestamptz);
    END IF;"""

DELETE_HOLDS = """IF p_closed_holds IS NOT NULL THEN
        DELETE FROM ledger.holds WHERE stream_id = ANY (p_closed_holds);
    END IF;"""

# An extended hold is in both arguments: deleted first, it is then inserted with its new time.
INSERT_FIRST = f"{INSERT_HOLDS}\n    {DELETE_HOLDS}"
DELETE_FIRST = f"{DELETE_HOLDS}\n    {INSERT_HOLDS}"

# What an earlier release cannot read.
REFUSE = """
DO $$
DECLARE
    found bigint;
BEGIN
    SELECT position INTO found FROM ledger.cost_events WHERE type IN ('cost.extended', 'cost.credited')
    ORDER BY position LIMIT 1;
    IF found IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state', MESSAGE = 'the event at position ' || found
            || ' cannot be read by an earlier release; nothing was changed. Next: restore a backup from before the '
            || 'upgrade, or stay on this release';
    END IF;
END $$
"""


def replace_in_function(function: str, old: str, new: str) -> None:
    """Replace a part of a function.

    Args:
        function: its name in the schema `ledger`.
        old: the part to replace.
        new: the new part.
    """
    op.execute(REPLACE_IN_FUNCTION.format(function=function, old=old, new=new))


def upgrade() -> None:
    op.execute("SET LOCAL statement_timeout = 0")
    for statement in SKIP_FORMAT_1:
        op.execute(statement)
    op.execute("DELETE FROM ledger.entries")
    op.execute(STORE_ENTRIES)
    replace_in_function("load_state", HOLD_WITHOUT_EVENTS, HOLD_WITH_EVENTS)
    replace_in_function("store_states", INSERT_FIRST, DELETE_FIRST)


def downgrade() -> None:
    op.execute("SET LOCAL statement_timeout = 0")
    if context.get_revision_argument() is not None:
        # Down to an empty database, the events are deleted too, if that is confirmed (env.py).
        op.execute(REFUSE)
    replace_in_function("store_states", DELETE_FIRST, INSERT_FIRST)
    replace_in_function("load_state", HOLD_WITH_EVENTS, HOLD_WITHOUT_EVENTS)
    op.execute("DROP FUNCTION ledger.skip_row CASCADE")
    op.execute(STORE_FORMAT_1)
