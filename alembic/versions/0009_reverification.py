"""Table of the background re-verification: the position reached, the last full pass, a changed event.

Revision: 0009, after 0008.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# `next_at` is when the next chunk of events is due; NULL: at once. `started_at` is NULL between two passes.
TABLE = """
CREATE TABLE ledger.reverification (
    id smallint DEFAULT '1' NOT NULL,
    position bigint NOT NULL,
    started_at timestamptz,
    next_at timestamptz,
    last_full_pass_at timestamptz,
    changed_position bigint,
    change text,
    CONSTRAINT reverification_pkey PRIMARY KEY (id),
    CONSTRAINT reverification_id_check CHECK (id = 1)
);

INSERT INTO ledger.reverification (position) VALUES (0)
"""

GRANT_SERVICE = """
    IF to_regrole('ledger_service') IS NOT NULL THEN
        GRANT SELECT, UPDATE ON ledger.reverification TO ledger_service;
    END IF;
"""

# As in 0006: `ledger.grant_roles` is called when the roles are created after the migration.
GRANT_ROLES = f"""
CREATE PROCEDURE ledger.grant_roles() LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    {GRANT_SERVICE}
    CALL ledger.grant_roles_0006();
END $$
"""

GRANT_NOW = f"""
DO $$ BEGIN
    REVOKE ALL ON ledger.reverification FROM PUBLIC;
    {GRANT_SERVICE}
END $$
"""

# New objects belong to the owner of the schema, if the user of the migration may hand them over.
HAND_OVER = """
DO $$
DECLARE
    owner text := (SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'ledger');
BEGIN
    EXECUTE 'ALTER TABLE ledger.reverification OWNER TO ' || owner;
EXCEPTION WHEN insufficient_privilege THEN NULL;
END $$
"""


def upgrade() -> None:
    for statement in TABLE.strip().split(";\n"):
        op.execute(statement)
    op.execute("ALTER PROCEDURE ledger.grant_roles() RENAME TO grant_roles_0006")
    op.execute(GRANT_ROLES)
    op.execute("REVOKE ALL ON PROCEDURE ledger.grant_roles FROM PUBLIC")
    op.execute(GRANT_NOW)
    op.execute(HAND_OVER)


def downgrade() -> None:
    op.execute("DROP PROCEDURE ledger.grant_roles()")
    op.execute("ALTER PROCEDURE ledger.grant_roles_0006() RENAME TO grant_roles")
    op.execute("DROP TABLE ledger.reverification")
