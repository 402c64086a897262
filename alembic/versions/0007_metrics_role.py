"""The role `metrics` of an API key: it may read the metrics of the service, and nothing else.

Revision: 0007, after 0006.
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

ROLES = "'viewer', 'agent', 'manager', 'auditor', 'admin'"


def allow(roles: str) -> None:
    """Allow these roles, and no others."""
    op.execute("ALTER TABLE ledger.api_keys DROP CONSTRAINT api_keys_role_check")
    op.execute(f"ALTER TABLE ledger.api_keys ADD CONSTRAINT api_keys_role_check CHECK (role IN ({roles}))")


def upgrade() -> None:
    allow(f"{ROLES}, 'metrics'")


def downgrade() -> None:
    # Earlier releases cannot read a key of this role. It gives no access to the ledger, so nothing is lost.
    op.execute("DELETE FROM ledger.api_keys WHERE role = 'metrics'")
    allow(ROLES)
