"""The audit log: the tiles of the Merkle tree over the events, and the last signed checkpoint.

Revision: 0003, after 0002.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE ledger.log_tiles (
    level smallint NOT NULL,
    index bigint NOT NULL,
    hashes bytea NOT NULL,
    CONSTRAINT log_tiles_pkey PRIMARY KEY (level, index)
);

CREATE TABLE ledger.log_checkpoint (
    id smallint DEFAULT '1' NOT NULL,
    size bigint NOT NULL,
    root bytea NOT NULL,
    origin text,
    verifier_key text,
    note bytea,
    sealed_at timestamptz,
    refusal text,
    CONSTRAINT log_checkpoint_pkey PRIMARY KEY (id),
    CONSTRAINT log_checkpoint_id_check CHECK (id = 1)
);

INSERT INTO ledger.log_checkpoint (size, root) VALUES (0, sha256(''));
"""


def upgrade() -> None:
    for statement in TABLES.strip().split(";\n"):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE ledger.log_checkpoint, ledger.log_tiles")
