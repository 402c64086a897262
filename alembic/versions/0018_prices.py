"""Prices: partition of their events, load_prices, the table `prices`, indexes of entries to reprice.

Revision: 0018, after 0017.
"""

from alembic import context, op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

EVENTS = """
CREATE TABLE ledger.price_events PARTITION OF ledger.events FOR VALUES IN ('price');
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON ledger.price_events
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
ALTER TABLE ledger.streams DROP CONSTRAINT streams_category_check,
    ADD CONSTRAINT streams_category_check CHECK (category IN ('campaign', 'content', 'job', 'price'))
"""

# VOLATILE: a call after the head lock was taken sees the events of the append before. STRICT: without a position, it is
# not called at all.
LOAD_PRICES = """
CREATE FUNCTION ledger.load_prices(p_from bigint, p_max integer) RETURNS text LANGUAGE plpgsql VOLATILE STRICT
SET enable_seqscan = off SET timezone = 'UTC' AS $$
BEGIN
    RETURN (
        SELECT coalesce(
            json_agg(json_build_array(position, id, stream_id, type, schema_version, data::text))::text, '[]'
        ) FROM (
            SELECT position, id, stream_id, type, schema_version, data FROM ledger.price_events
            WHERE position >= p_from ORDER BY position LIMIT p_max
        ) AS price
    );
END $$
"""

PRICES = """
CREATE TABLE public.prices (
    id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    position bigint NOT NULL,
    stream_id uuid NOT NULL,
    price_position bigint NOT NULL,
    provider varchar(255) NOT NULL,
    model varchar(255) NOT NULL,
    names jsonb DEFAULT '[]'::jsonb NOT NULL,
    prefixes jsonb DEFAULT '[]'::jsonb NOT NULL,
    service_tier varchar(32) NOT NULL,
    currency char(3) NOT NULL,
    per bigint NOT NULL,
    rates jsonb NOT NULL,
    tiers jsonb DEFAULT '[]'::jsonb NOT NULL,
    effective_from timestamptz NOT NULL,
    effective_to timestamptz,
    withdrawn boolean DEFAULT false NOT NULL,
    source jsonb,
    actor text NOT NULL,
    CONSTRAINT prices_pkey PRIMARY KEY (id),
    CONSTRAINT prices_effective_to_check CHECK (effective_to >= effective_from)
);
CREATE INDEX prices_model_idx ON public.prices (model);
CREATE INDEX prices_newest_first_idx ON public.prices (created_at DESC, id);
CREATE INDEX prices_price_position_idx ON public.prices (price_position);
CREATE INDEX prices_provider_idx ON public.prices (provider);
CREATE INDEX prices_stream_id_idx ON public.prices (stream_id);
ALTER TABLE public.prices ENABLE ROW LEVEL SECURITY
"""

# In the order in which repricing reads the entries, page by page.
REPRICING_INDEXES = """
CREATE INDEX budget_entries_priced_idx ON public.budget_entries (id) WHERE price_position IS NOT NULL;
CREATE INDEX budget_entries_unpriced_idx ON public.budget_entries (id) WHERE unpriced
"""

TABLE_COMMENT = "Prices of models: a row for each time from which a model has a price, or has none any more."

COMMENTS = {
    "id": "The id of the row, derived from its price event.",
    "stream_id": "The stream of all prices of the provider, model, service tier and currency.",
    "price_position": "The position of its price event, as in budget_entries.price_position.",
    "provider": "Who charges for the model, such as openai.",
    "model": "The name of the model.",
    "names": "Further names of the model, as a JSON array.",
    "prefixes": "Beginnings of names that have this price too, as a JSON array; the longest that fits counts.",
    "service_tier": "standard, batch, flex or priority.",
    "currency": "ISO 4217 code of its rates.",
    "per": "The number of units that a rate is for, such as 1000000.",
    "rates": "What `per` units of each usage counter cost, in `currency`; {} if withdrawn.",
    "tiers": "Other rates of calls with more than above_input_tokens, as a JSON array.",
    "effective_from": "When it begins to apply.",
    "effective_to": "When the next price or a withdrawal begins to apply instead; null: none is known.",
    "withdrawn": "True if the model has no price from effective_from on.",
    "source": "Where the price was taken from: name, version, sha256; null if withdrawn.",
    "actor": "The API key that published or withdrew it.",
    "created_at": "When the first event was recorded.",
    "updated_at": "When the last event that changed the row was recorded.",
    "position": "The position in the log of that last event.",
}

GRANTS = """
    IF to_regrole('ledger_service') IS NOT NULL THEN
        GRANT SELECT, INSERT ON ledger.price_events TO ledger_service;
        GRANT EXECUTE ON FUNCTION ledger.load_prices TO ledger_service;
        GRANT SELECT, INSERT, UPDATE, DELETE ON public.prices TO ledger_service;
        IF NOT EXISTS (SELECT FROM pg_policies WHERE schemaname = 'public' AND tablename = 'prices'
            AND policyname = 'ledger_service')
        THEN
            CREATE POLICY ledger_service ON public.prices TO ledger_service USING (true) WITH CHECK (true);
        END IF;
    END IF;
    IF to_regrole('ledger_reader') IS NOT NULL THEN
        GRANT SELECT ON public.prices TO ledger_reader;
        IF NOT EXISTS (SELECT FROM pg_policies WHERE schemaname = 'public' AND tablename = 'prices'
            AND policyname = 'ledger_reader')
        THEN
            CREATE POLICY ledger_reader ON public.prices FOR SELECT TO ledger_reader USING (true);
        END IF;
    END IF;
"""

REVOKES = """
    FOR name IN
        SELECT 'PUBLIC'
        UNION ALL
        SELECT rolname::text FROM pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
    LOOP
        EXECUTE 'REVOKE ALL ON ledger.price_events, public.prices FROM ' || name;
        EXECUTE 'REVOKE ALL ON FUNCTION ledger.load_prices FROM ' || name;
    END LOOP;
"""

# New objects belong to the owner of the schema, if the user who made them may hand them over.
HAND_OVER = """
    BEGIN
        FOR name IN
            SELECT 'TABLE ' || oid::regclass FROM pg_class
            WHERE oid IN ('ledger.price_events'::regclass, 'public.prices'::regclass)
                AND pg_get_userbyid(relowner) = current_user
            UNION ALL
            SELECT 'FUNCTION ' || oid::regprocedure FROM pg_proc
            WHERE oid = 'ledger.load_prices'::regproc AND pg_get_userbyid(proowner) = current_user
        LOOP
            EXECUTE 'ALTER ' || name || ' OWNER TO '
                || (SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'ledger');
        END LOOP;
    EXCEPTION WHEN insufficient_privilege THEN NULL;
    END;
"""

GRANT_ROLES = f"""
CREATE PROCEDURE ledger.grant_roles() LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name text;
BEGIN
    CALL ledger.grant_roles_0017();
    {REVOKES}
    {GRANTS}
    {HAND_OVER}
END $$
"""

GRANT_NOW = f"""
DO $$
DECLARE
    name text;
BEGIN
    {REVOKES}
    {GRANTS}
    {HAND_OVER}
END $$
"""

REFUSE = """
DO $$
DECLARE
    found bigint;
BEGIN
    SELECT min(position) INTO found FROM ledger.price_events;
    IF found IS NULL THEN
        SELECT min(position) INTO found FROM ledger.cost_events
        WHERE data::text LIKE '%"usage":%' AND type IN ('cost.recorded', 'cost.settled') AND data ->> 'cost' IS NULL;
    END IF;
    IF found IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state', MESSAGE = 'the event at position ' || found
            || ' cannot be read by an earlier release; nothing was changed. Next: restore a backup from before the '
            || 'upgrade, or stay on this release';
    END IF;
END $$
"""


def upgrade() -> None:
    for statement in ";\n".join((EVENTS, PRICES, REPRICING_INDEXES)).strip().split(";\n"):
        op.execute(statement)
    op.execute(LOAD_PRICES)
    op.execute(f"COMMENT ON TABLE public.prices IS '{TABLE_COMMENT}'")
    for column, comment in COMMENTS.items():
        op.execute(f"COMMENT ON COLUMN public.prices.{column} IS '{comment}'")
    op.execute("ALTER PROCEDURE ledger.grant_roles() RENAME TO grant_roles_0017")
    op.execute(GRANT_ROLES)
    op.execute("REVOKE ALL ON PROCEDURE ledger.grant_roles FROM PUBLIC")
    op.execute(GRANT_NOW)


def downgrade() -> None:
    if context.get_revision_argument() is not None:
        # Down to an empty database, the events are deleted too, if that is confirmed (env.py).
        op.execute(REFUSE)
    op.execute("DELETE FROM ledger.streams WHERE category = 'price'")
    op.execute("DROP PROCEDURE ledger.grant_roles()")
    op.execute("ALTER PROCEDURE ledger.grant_roles_0017() RENAME TO grant_roles")
    op.execute("DROP FUNCTION ledger.load_prices")
    op.execute("DROP INDEX public.budget_entries_priced_idx, public.budget_entries_unpriced_idx")
    op.execute("DROP TABLE public.prices")
    op.execute("DROP TABLE ledger.price_events")
    op.execute(
        "ALTER TABLE ledger.streams DROP CONSTRAINT streams_category_check, "
        "ADD CONSTRAINT streams_category_check CHECK (category IN ('campaign', 'content', 'job'))"
    )
