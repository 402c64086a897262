"""Function erase_text demands that the same transaction records the erasure as an event.

Revision: 0011, after 0010.
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# An append writes the event first. Rows of this transaction are those whose `xmin` is its id; the table is a partition,
# since a partitioned table has no system columns.
ERASE_TEXT = """
CREATE OR REPLACE FUNCTION ledger.erase_text(p_position bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM ledger.events AS event
        JOIN ledger.ledger_events AS erasure ON erasure.stream_id = event.stream_id
        WHERE event.position = p_position AND erasure.position > p_position
            AND erasure.type = 'ledger.payload_erased' AND erasure.data ->> 'position' = p_position::text
            AND erasure.data ->> 'category' = event.category
            AND erasure.position <= (SELECT position FROM ledger.log_head)
            AND erasure.xmin = pg_current_xact_id()::xid
    ) THEN
        RAISE EXCEPTION USING
            MESSAGE = 'the text of position ' || coalesce(p_position::text, 'null') || ' cannot be erased: this '
                'transaction records no ledger.payload_erased of it',
            ERRCODE = 'restrict_violation',
            HINT = 'Use: ledger events erase.';
    END IF;
    UPDATE ledger.events SET text = NULL, text_salt = NULL WHERE position = p_position AND text IS NOT NULL;
    RETURN FOUND;
END $$;
"""

# As in 0004.
ERASE_ANY_TEXT = """
CREATE OR REPLACE FUNCTION ledger.erase_text(p_position bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE ledger.events SET text = NULL, text_salt = NULL WHERE position = p_position AND text IS NOT NULL;
    RETURN FOUND;
END $$;
"""


def upgrade() -> None:
    op.execute(ERASE_TEXT)


def downgrade() -> None:
    op.execute(ERASE_ANY_TEXT)
