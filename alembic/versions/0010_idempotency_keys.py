"""Tables of Idempotency-Keys: the secret that event ids are derived with, and keys with their content.

Revision: 0010, after 0009.
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# A downgrade keeps the secret: after the next upgrade, retries must find the events whose ids were derived with it.
# gen_random_uuid() has 122 strong random bits. `key` and `content` are digests: neither a key nor a text can be read.
TABLES = """
CREATE TABLE IF NOT EXISTS ledger.idempotency_secret (
    id boolean DEFAULT true NOT NULL,
    secret bytea NOT NULL,
    CONSTRAINT idempotency_secret_pkey PRIMARY KEY (id),
    CONSTRAINT idempotency_secret_id_check CHECK (id)
);

INSERT INTO ledger.idempotency_secret (secret)
VALUES (sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())))
ON CONFLICT DO NOTHING;

CREATE TABLE ledger.idempotency_keys (
    key bytea NOT NULL,
    content bytea NOT NULL,
    first_used_at timestamp with time zone NOT NULL,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (key)
);

CREATE INDEX idempotency_keys_first_used_at_idx ON ledger.idempotency_keys (first_used_at)
"""

# Whether a key is new, or was used for the same content in the last 24 hours; a known one costs no write. After a new
# one is kept, up to ten that are older are deleted, so the table holds about the keys of one day; in the opposite
# order, two calls could deadlock. `recorded` are those of the given events that the actor has recorded: earlier
# releases gave events ids that anybody could compute.
CLAIM = """
CREATE FUNCTION ledger.claim_idempotency_key(
    p_key bytea, p_content bytea, p_actor text, p_categories text[], p_streams uuid[], p_events uuid[],
    OUT is_same boolean, OUT recorded uuid[]
) LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    p_now timestamptz := clock_timestamp();
    p_oldest timestamptz := p_now - interval '24 hours';
BEGIN
    SELECT array_agg(event.id) INTO recorded
    FROM unnest(p_categories, p_streams, p_events) AS wanted (category, stream_id, id)
    JOIN ledger.events AS event
        ON event.category = wanted.category AND event.stream_id = wanted.stream_id AND event.id = wanted.id
            AND event.actor = p_actor;

    SELECT content = p_content INTO is_same
    FROM ledger.idempotency_keys WHERE key = p_key AND first_used_at >= p_oldest;
    IF is_same IS NOT NULL THEN
        RETURN;
    END IF;
    INSERT INTO ledger.idempotency_keys AS kept (key, content, first_used_at) VALUES (p_key, p_content, p_now)
    ON CONFLICT (key) DO UPDATE SET
        content = CASE WHEN kept.first_used_at < p_oldest THEN excluded.content ELSE kept.content END,
        first_used_at = CASE WHEN kept.first_used_at < p_oldest THEN excluded.first_used_at ELSE kept.first_used_at END
    RETURNING kept.content = p_content INTO is_same;
    DELETE FROM ledger.idempotency_keys WHERE key IN (
        SELECT key FROM ledger.idempotency_keys
        WHERE first_used_at < p_oldest ORDER BY first_used_at LIMIT 10 FOR UPDATE SKIP LOCKED
    );
END $$
"""

GRANT_SERVICE = """
    IF to_regrole('ledger_service') IS NOT NULL THEN
        GRANT SELECT ON ledger.idempotency_secret TO ledger_service;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ledger.idempotency_keys TO ledger_service;
        GRANT EXECUTE ON FUNCTION ledger.claim_idempotency_key TO ledger_service;
    END IF;
"""

GRANT_ROLES = f"""
CREATE PROCEDURE ledger.grant_roles() LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    {GRANT_SERVICE}
    CALL ledger.grant_roles_0009();
END $$
"""

GRANT_NOW = f"""
DO $$ BEGIN
    REVOKE ALL ON ledger.idempotency_secret, ledger.idempotency_keys FROM PUBLIC;
    REVOKE ALL ON FUNCTION ledger.claim_idempotency_key FROM PUBLIC;
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
    FOREACH name IN ARRAY ARRAY['TABLE ledger.idempotency_secret', 'TABLE ledger.idempotency_keys',
        'FUNCTION ledger.claim_idempotency_key']
    LOOP
        EXECUTE 'ALTER ' || name || ' OWNER TO ' || owner;
    END LOOP;
EXCEPTION WHEN insufficient_privilege THEN NULL;
END $$
"""


def upgrade() -> None:
    for statement in TABLES.strip().split(";\n"):
        op.execute(statement)
    op.execute(CLAIM)
    op.execute("ALTER PROCEDURE ledger.grant_roles() RENAME TO grant_roles_0009")
    op.execute(GRANT_ROLES)
    op.execute("REVOKE ALL ON PROCEDURE ledger.grant_roles FROM PUBLIC")
    op.execute(GRANT_NOW)
    op.execute(HAND_OVER)


def downgrade() -> None:
    op.execute("DROP PROCEDURE ledger.grant_roles()")
    op.execute("ALTER PROCEDURE ledger.grant_roles_0009() RENAME TO grant_roles")
    op.execute("DROP FUNCTION ledger.claim_idempotency_key")
    op.execute("DROP TABLE ledger.idempotency_keys")
