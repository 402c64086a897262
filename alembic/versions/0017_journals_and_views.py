"""The journals cost_postings and denied_holds, filled from the log, and views for business tools.

Filling reads all cost events once; docs/upgrading.md has its time. Revision: 0017, after 0016.
"""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE cost_postings (
    position bigint NOT NULL,
    entry_id uuid NOT NULL,
    type varchar(32) NOT NULL,
    amount numeric(38, 18) NOT NULL,
    currency char(3) NOT NULL,
    tokens_used bigint NOT NULL,
    unpriced boolean NOT NULL,
    booked_at timestamptz NOT NULL,
    occurred_at timestamptz NOT NULL,
    campaign_id uuid,
    agent_job_id uuid,
    actor text NOT NULL,
    reason text,
    CONSTRAINT cost_postings_pkey PRIMARY KEY (position),
    CONSTRAINT cost_postings_type_check CHECK (type IN ('recorded', 'settled', 'credited', 'adjusted', 'priced'))
);

CREATE TABLE denied_holds (
    position bigint NOT NULL,
    denied_at timestamptz NOT NULL,
    amount numeric(28, 18) NOT NULL,
    currency char(3) NOT NULL,
    resource_type varchar(63) NOT NULL,
    model_used varchar(255),
    provider varchar(255),
    campaign_id uuid,
    agent_job_id uuid,
    scopes jsonb NOT NULL,
    CONSTRAINT denied_holds_pkey PRIMARY KEY (position)
);

ALTER TABLE cost_postings ENABLE ROW LEVEL SECURITY;
ALTER TABLE denied_holds ENABLE ROW LEVEL SECURITY
"""

# What the worker has folded: it continues after the checkpoint, and has left out the events that were skipped.
FOLDED = """
    position <= (SELECT position FROM ledger.projection_checkpoints WHERE name = 'read_models')
    AND NOT EXISTS (
        SELECT FROM ledger.ledger_events AS skip
        WHERE skip.type = 'ledger.projection_skipped' AND (skip.data ->> 'position')::bigint = event.position
    )
"""

FILL = f"""
INSERT INTO cost_postings (position, entry_id, type, amount, currency, tokens_used, unpriced, booked_at, occurred_at,
    campaign_id, agent_job_id, actor, reason)
SELECT event.position, event.stream_id, substr(event.type, 6),
    CASE event.type
        WHEN 'cost.adjusted' THEN (data ->> 'amount')::numeric
        WHEN 'cost.credited' THEN -(data ->> 'amount')::numeric
        ELSE coalesce((data ->> 'cost')::numeric, 0)
    END,
    entry.currency,
    coalesce((data ->> 'tokens_used')::bigint, coalesce((data -> 'usage' ->> 'input_tokens')::bigint, 0)
        + coalesce((data -> 'usage' ->> 'output_tokens')::bigint, 0)),
    event.type IN ('cost.recorded', 'cost.settled') AND data ->> 'cost' IS NULL,
    event.recorded_at, event.occurred_at, event.campaign_id, event.agent_job_id, event.actor,
    nullif(text ->> 'reason', '')
FROM ledger.cost_events AS event JOIN budget_entries AS entry ON entry.id = event.stream_id
WHERE type IN ('cost.recorded', 'cost.settled', 'cost.credited', 'cost.adjusted', 'cost.priced')
    AND event.{FOLDED.strip()};

INSERT INTO denied_holds (position, denied_at, amount, currency, resource_type, model_used, provider, campaign_id,
    agent_job_id, scopes)
SELECT position, recorded_at, (data ->> 'amount')::numeric, data ->> 'currency', data ->> 'resource_type',
    data ->> 'model_used', data ->> 'provider', campaign_id, agent_job_id, (data -> 'scopes')::jsonb
FROM ledger.cost_events AS event WHERE type = 'cost.denied' AND event.{FOLDED.strip()};

CREATE INDEX cost_postings_booked_at_idx ON cost_postings (booked_at);
CREATE INDEX cost_postings_campaign_id_booked_at_idx ON cost_postings (campaign_id, booked_at);
CREATE INDEX cost_postings_entry_id_idx ON cost_postings (entry_id);
CREATE INDEX denied_holds_denied_at_idx ON denied_holds (denied_at)
"""  # noqa: S608 (fixed texts)


def ratio(numerator: str, denominator: str) -> str:
    """Return SQL that divides by a positive number and rounds half-even to 10 places, as `ledger.domain.money` does."""
    return f"""(SELECT trim_scale((whole + CASE
            WHEN abs(rest) * 2 > {denominator} OR (abs(rest) * 2 = {denominator} AND mod(whole, 2) <> 0)
            THEN sign(rest) ELSE 0 END) * 0.0000000001)
        FROM (SELECT div(scaled, {denominator}) AS whole, mod(scaled, {denominator}) AS rest
            FROM (SELECT ({numerator}) * 10000000000 AS scaled) AS scaling) AS quotient)"""  # noqa: S608 (fixed texts)


WEEK = "604800"
SECONDS_LEFT = "greatest(extract(epoch FROM campaign.end_date - now()), 0)"

VIEWS = f"""
CREATE VIEW campaign_health WITH (security_invoker = true) AS
SELECT campaign.id AS campaign_id, campaign.name, campaign.status, campaign.currency, campaign.budget, campaign.spend,
    campaign.held, campaign.budget - campaign.spend - campaign.held AS available,
    CASE WHEN campaign.budget = 0 OR campaign.spend <= 0 THEN campaign.budget * 0
        ELSE {ratio("campaign.spend * 100", "campaign.budget")} END AS used_percentage,
    {ratio("week.cost", "7")} AS burn_rate_per_day,
    CASE WHEN campaign.budget IS NOT NULL AND week.cost > 0
        THEN {ratio("greatest(campaign.budget - campaign.spend - campaign.held, 0) * 7", "week.cost")} END AS days_left,
    campaign.start_date, campaign.end_date,
    CASE WHEN campaign.end_date IS NOT NULL
        THEN {ratio(f"campaign.spend * {WEEK} + week.cost * {SECONDS_LEFT}", WEEK)} END AS projected_spend
FROM campaigns AS campaign CROSS JOIN LATERAL (
    SELECT coalesce(sum(entry.cost), 0) AS cost FROM budget_entries AS entry
    WHERE entry.campaign_id = campaign.id AND entry.status = 'settled'
        AND entry.occurred_at > now() - interval '7 days' AND entry.occurred_at <= now()
) AS week;

CREATE VIEW spend_daily WITH (security_invoker = true) AS
SELECT (entry.occurred_at AT TIME ZONE 'UTC')::date AS day, entry.campaign_id, campaign.name AS campaign_name,
    job.agent_type, job.agent_name, entry.resource_type, entry.model_used, entry.provider, entry.currency,
    sum(entry.cost) AS cost, sum(entry.tokens_used)::bigint AS tokens_used,
    coalesce(sum(entry.input_tokens), 0)::bigint AS input_tokens,
    coalesce(sum(entry.output_tokens), 0)::bigint AS output_tokens,
    coalesce(sum(entry.cache_read_tokens), 0)::bigint AS cache_read_tokens,
    coalesce(sum(entry.cache_write_tokens), 0)::bigint AS cache_write_tokens,
    coalesce(sum(entry.reasoning_tokens), 0)::bigint AS reasoning_tokens,
    count(*) AS entries, count(*) FILTER (WHERE entry.unpriced) AS unpriced
FROM budget_entries AS entry
LEFT JOIN agent_jobs AS job ON job.id = entry.agent_job_id
LEFT JOIN campaigns AS campaign ON campaign.id = entry.campaign_id
WHERE entry.status = 'settled'
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
"""  # noqa: S608 (fixed texts)

CURRENCY = "ISO 4217 code of the amount."
COMMENTS = {
    "TABLE cost_postings": (
        "The journal of costs: one row for each movement of money, never changed.",
        {
            "position": "The position of the event in the log.",
            "entry_id": "The budget entry; its id in budget_entries.",
            "type": "recorded, settled, credited, adjusted or priced.",
            "amount": "What the movement adds to the cost of the entry, in `currency`; negative for credits.",
            "currency": CURRENCY,
            "tokens_used": "What it adds to the tokens of the entry.",
            "unpriced": "True if the cost was unknown when it was booked; a later posting of type priced has it.",
            "booked_at": "When it was recorded.",
            "occurred_at": "When it happened, as the event says.",
            "campaign_id": "The campaign that it counts for; it stays when the campaign is deleted.",
            "agent_job_id": "The job that it counts for.",
            "actor": "The API key that recorded it.",
            "reason": "Why; null if none was given, or if it was erased.",
        },
    ),
    "TABLE denied_holds": (
        "Holds that were refused because of a budget: one row each, never changed.",
        {
            "position": "The position of the event in the log.",
            "denied_at": "When it was refused.",
            "amount": "What was asked for, in `currency`.",
            "currency": CURRENCY,
            "resource_type": "What the money was for, such as llm_api.",
            "model_used": "The model, as the provider names it.",
            "provider": "Who would have been paid.",
            "campaign_id": "The campaign that it would have counted for.",
            "agent_job_id": "The job that it would have counted for.",
            "scopes": "The budgets that it did not fit: scope, limit, spent, held, requested and available of each.",
        },
    ),
    "VIEW campaign_health": (
        "Campaigns with their budget, spend, rate of spending and projection, as of now.",
        {
            "campaign_id": "The campaign.",
            "name": "Its name; empty if erased.",
            "status": "draft, active, paused, completed or archived.",
            "currency": "ISO 4217 code of all its amounts.",
            "budget": "The limit of spend and held money; null: no limit.",
            "spend": "The sum of the costs of its budget entries.",
            "held": "The sum of its open holds.",
            "available": "budget - spend - held; negative if it is over budget, null without a limit.",
            "used_percentage": "spend in percent of budget, to 10 decimals; null without a limit.",
            "burn_rate_per_day": "The cost of the last 7 days, by occurred_at, divided by 7, to 10 decimals.",
            "days_left": "available divided by the rate, to 10 decimals; null without a limit, or without spending.",
            "start_date": "When it starts.",
            "end_date": "When it ends; null: open end.",
            "projected_spend": "What it will have spent on end_date at this rate, to 10 decimals; null without an end.",
        },
    ),
    "VIEW spend_daily": (
        "Settled costs by UTC day, campaign, agent, resource, model, provider and currency.",
        {
            "day": "The UTC day of occurred_at. An adjustment counts on the day of its entry.",
            "campaign_id": "The campaign that it counts for.",
            "campaign_name": "Its name; empty if erased.",
            "agent_type": "The kind of agent of the job.",
            "agent_name": "The name of the agent of the job.",
            "resource_type": "What the money was spent on, such as llm_api.",
            "model_used": "The model, as the provider names it.",
            "provider": "Who is paid.",
            "currency": "ISO 4217 code of the cost.",
            "cost": "The sum of the costs, adjustments included.",
            "tokens_used": "Tokens as reported, or input and output tokens together.",
            "input_tokens": "Input tokens, cached ones included.",
            "output_tokens": "Output tokens, reasoning included.",
            "cache_read_tokens": "Input tokens read from a cache.",
            "cache_write_tokens": "Input tokens written to a cache.",
            "reasoning_tokens": "Output tokens of reasoning.",
            "entries": "The number of budget entries.",
            "unpriced": "The number of those whose cost is not known yet, and counts as 0.",
        },
    ),
}
"""By table or view: its comment, and those of its columns."""

NAMES = ("cost_postings", "denied_holds", "campaign_health", "spend_daily")
ALL = ", ".join(f"public.{name}" for name in NAMES)

# `ledger rebuild` runs as ledger_service and writes whole rows, so granting only some columns would hold nothing back.
# New objects belong to the owner of the schema, if the user who made them may hand them over.
GRANT = f"""
    FOR name IN
        SELECT 'PUBLIC' UNION ALL
        SELECT rolname::text FROM pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
    LOOP
        EXECUTE 'REVOKE ALL ON {ALL} FROM ' || name;
    END LOOP;
    IF to_regrole('ledger_service') IS NOT NULL THEN
        GRANT SELECT, INSERT, UPDATE, DELETE ON public.cost_postings, public.denied_holds TO ledger_service;
        GRANT SELECT ON public.campaign_health, public.spend_daily TO ledger_service;
    END IF;
    IF to_regrole('ledger_reader') IS NOT NULL THEN GRANT SELECT ON {ALL} TO ledger_reader; END IF;
    FOREACH name IN ARRAY ARRAY['cost_postings', 'denied_holds'] LOOP
        IF to_regrole('ledger_service') IS NOT NULL AND NOT EXISTS (
            SELECT FROM pg_policies WHERE schemaname = 'public' AND tablename = name AND policyname = 'ledger_service'
        ) THEN
            EXECUTE 'CREATE POLICY ledger_service ON public.' || name
                || ' TO ledger_service USING (true) WITH CHECK (true)';
        END IF;
        IF to_regrole('ledger_reader') IS NOT NULL AND NOT EXISTS (
            SELECT FROM pg_policies WHERE schemaname = 'public' AND tablename = name AND policyname = 'ledger_reader'
        ) THEN
            EXECUTE 'CREATE POLICY ledger_reader ON public.' || name || ' FOR SELECT TO ledger_reader USING (true)';
        END IF;
    END LOOP;
    BEGIN
        FOR name IN
            SELECT oid::regclass FROM pg_class
            WHERE oid = ANY (ARRAY{[f"public.{name}" for name in NAMES]}::regclass[])
                AND pg_get_userbyid(relowner) = current_user
        LOOP
            EXECUTE 'ALTER TABLE ' || name || ' OWNER TO '
                || (SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'ledger');
        END LOOP;
    EXCEPTION WHEN insufficient_privilege THEN NULL;
    END;
"""  # noqa: S608 (fixed names)

GRANT_ROLES = f"""
CREATE PROCEDURE ledger.grant_roles() LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name text;
BEGIN
    CALL ledger.grant_roles_0016();
    {GRANT}
END $$
"""

GRANT_NOW = f"DO $$ DECLARE name text; BEGIN {GRANT} END $$"


def execute_all(statements: str) -> None:
    """Execute statements that are separated by semicolons at the ends of lines."""
    for statement in statements.strip().split(";\n"):
        op.execute(statement)


def upgrade() -> None:
    op.execute("SET LOCAL statement_timeout = 0")
    execute_all(TABLES)
    execute_all(FILL)
    execute_all(VIEWS)
    for target, (text, columns) in COMMENTS.items():
        op.execute(f"COMMENT ON {target} IS '{text}'")
        for name, column_text in columns.items():
            op.execute(f"COMMENT ON COLUMN {target.split()[1]}.{name} IS '{column_text}'")
    op.execute("ALTER PROCEDURE ledger.grant_roles() RENAME TO grant_roles_0016")
    op.execute(GRANT_ROLES)
    op.execute("REVOKE ALL ON PROCEDURE ledger.grant_roles FROM PUBLIC")
    op.execute(GRANT_NOW)


def downgrade() -> None:
    op.execute("DROP PROCEDURE ledger.grant_roles()")
    op.execute("ALTER PROCEDURE ledger.grant_roles_0016() RENAME TO grant_roles")
    op.execute("DROP VIEW campaign_health, spend_daily")
    op.execute("DROP TABLE cost_postings, denied_holds")
