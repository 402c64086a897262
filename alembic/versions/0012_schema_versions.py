"""Triggers that refuse an event whose schema version is older than that of the last event of its type.

Revision: 0012, after 0011.
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# Along the log, the version of a type never falls (docs/decisions/0040), so the last event of the type has the newest.
# Only events of an older version are looked at. All such lookups together read each event about once, since each begins
# where the one before ended. The settings make PostgreSQL walk back along the index of positions.
# The error is one after which earlier releases have their clients retry, and not one that they report as a bug.
REFUSE_OLDER_VERSION = """
CREATE FUNCTION ledger.refuse_older_version() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $$
DECLARE
    newest smallint;
BEGIN
    SELECT schema_version INTO newest FROM ledger.events
    WHERE category = NEW.category AND type = NEW.type AND position < NEW.position
    ORDER BY position DESC LIMIT 1;
    IF newest > NEW.schema_version THEN
        RAISE EXCEPTION USING
            MESSAGE = NEW.type || ' in schema version ' || NEW.schema_version || ' refused: the log has version '
                || newest,
            ERRCODE = 'serialization_failure',
            HINT = 'An earlier release is still appending: stop its processes.';
    END IF;
    RETURN NULL;
END $$
"""

# AFTER: with a trigger before the insert, COPY would insert the rows one by one.
TRIGGER = """
CREATE TRIGGER older_version AFTER INSERT ON ledger.{table}
FOR EACH ROW WHEN (NEW.type = '{type}' AND NEW.schema_version < {version})
EXECUTE FUNCTION ledger.refuse_older_version()
"""

HAND_OVER = """
DO $$ BEGIN
    EXECUTE 'ALTER FUNCTION ledger.refuse_older_version OWNER TO '
        || (SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'ledger');
EXCEPTION WHEN insufficient_privilege THEN NULL;
END $$
"""


def upgrade() -> None:
    op.execute(REFUSE_OLDER_VERSION)
    op.execute("REVOKE ALL ON FUNCTION ledger.refuse_older_version FROM PUBLIC")
    op.execute(TRIGGER.format(table="job_events", type="job.queued", version=2))
    op.execute(TRIGGER.format(table="cost_events", type="cost.reserved", version=2))
    op.execute(HAND_OVER)


def downgrade() -> None:
    op.execute("DROP FUNCTION ledger.refuse_older_version CASCADE")
