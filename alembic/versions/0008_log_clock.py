"""Columns of the head of the log for its clock, which may be ahead of the server's.

Revision: 0008, after 0007.
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE ledger.log_head ADD COLUMN ahead_from timestamptz, ADD COLUMN ahead_since timestamptz")


def downgrade() -> None:
    op.execute("ALTER TABLE ledger.log_head DROP COLUMN ahead_from, DROP COLUMN ahead_since")
