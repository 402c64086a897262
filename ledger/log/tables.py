"""Tables of schema `ledger`: events, streams, accounts, holds, head, checkpoint, keys, sealed tree.

The migrations create them; `alembic check` compares both. Every unique key of event, stream and account tables contains
the stream or account id, so that the tables can be distributed by it. `position` has an index that is not unique: its
values are unique because every append locks the row of `log_head` first and updates it last.
"""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSON

from ledger.domain.event_type import CATEGORIES

SCHEMA = "ledger"

NAMING = {
    "pk": "%(table_name)s_pkey",
    "fk": "%(table_name)s_%(column_0_name)s_fkey",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    "ck": "%(table_name)s_%(constraint_name)s_check",
}
"""PostgreSQL's default names, so that a name in an error message can be found in the code."""

metadata = MetaData(schema=SCHEMA, naming_convention=NAMING)

PARTITIONS = tuple(f"{category}_events" for category in CATEGORIES)

Time = DateTime(timezone=True)

events = Table(
    "events",
    metadata,
    Column("position", BigInteger, nullable=False),
    Column("category", Text, nullable=False),
    Column("stream_id", Uuid, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("type", Text, nullable=False),
    Column("schema_version", SmallInteger, nullable=False),
    Column("occurred_at", Time, nullable=False),
    Column("recorded_at", Time, nullable=False),
    Column("actor", Text, nullable=False),
    Column("campaign_id", Uuid),
    Column("agent_job_id", Uuid),
    Column("correlation_id", Uuid),
    Column("causation_id", Uuid),
    Column("data", JSON, nullable=False),
    Column("text", JSON),
    Column("text_salt", LargeBinary),
    Column("text_commitment", Text),
    # Part of the receipt, not of the event.
    Column("over_budget", ARRAY(Text)),
    # Characters of data and text; limits the size of pages.
    Column("size", Integer, nullable=False),
    PrimaryKeyConstraint("stream_id", "version", "category"),
    UniqueConstraint("stream_id", "id", "category"),
    Index(None, "position"),
    Index(None, "campaign_id", "position", postgresql_where=text("campaign_id IS NOT NULL")),
    Index(None, "agent_job_id", "position", postgresql_where=text("agent_job_id IS NOT NULL")),
    CheckConstraint("position > 0", name="position"),
    CheckConstraint("version > 0", name="version"),
    CheckConstraint("(text IS NULL) = (text_salt IS NULL)", name="salt"),
    CheckConstraint("text IS NULL OR text_commitment IS NOT NULL", name="commitment"),
    postgresql_partition_by="LIST (category)",
)

EVENT_COLUMNS = tuple(column.name for column in events.columns)

# Version and decision state of campaign, content, job and price streams; a cost stream is folded from its events.
streams = Table(
    "streams",
    metadata,
    Column("stream_id", Uuid, nullable=False),
    Column("category", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("state", JSON, nullable=False),
    PrimaryKeyConstraint("stream_id", "category"),
    CheckConstraint("category IN ('campaign', 'content', 'job', 'price')", name="category"),
)

# The folded state of cost streams with more than one event; it may be behind the stream.
entries = Table(
    "entries",
    metadata,
    Column("stream_id", Uuid, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("state", JSON, nullable=False),
    PrimaryKeyConstraint("stream_id"),
    CheckConstraint("version > 0", name="version"),
)

# Balances of each campaign, and of each job that has cost entries.
accounts = Table(
    "accounts",
    metadata,
    Column("account_id", Uuid, nullable=False),
    Column("scope", Text, nullable=False),
    Column("currency", Text, nullable=False),
    # NULL: no limit.
    Column("budget", Numeric(28, 18)),
    Column("spent", Numeric(38, 18), nullable=False),
    Column("held", Numeric(38, 18), nullable=False),
    PrimaryKeyConstraint("account_id", "scope"),
    CheckConstraint("scope IN ('campaign', 'job')", name="scope"),
    CheckConstraint("budget >= 0", name="budget"),
    CheckConstraint("held >= 0", name="held"),
)

# Jobs that ended with more open holds than one append releases, and the position of the event that ended them.
pending_releases = Table(
    "pending_releases",
    metadata,
    Column("job_id", Uuid, nullable=False),
    Column("position", BigInteger, nullable=False),
    PrimaryKeyConstraint("job_id"),
)

# One row for each open hold.
holds = Table(
    "holds",
    metadata,
    Column("stream_id", Uuid, nullable=False),
    Column("amount", Numeric(28, 18), nullable=False),
    Column("campaign_id", Uuid),
    Column("agent_job_id", Uuid),
    Column("expires_at", Time, nullable=False),
    PrimaryKeyConstraint("stream_id"),
    Index(None, "expires_at"),
    Index(None, "agent_job_id", postgresql_where=text("agent_job_id IS NOT NULL")),
    CheckConstraint("amount >= 0", name="amount"),
)

# One row: the position and time of the last event. Every append locks it first and updates it last.
log_head = Table(
    "log_head",
    metadata,
    Column("id", SmallInteger, nullable=False, server_default="1"),
    Column("position", BigInteger, nullable=False),
    Column("recorded_at", Time, nullable=False),
    # New at each move of the head: after a failover that lost events, another history may reach the same position.
    Column("token", Uuid, nullable=False, server_default=text("gen_random_uuid()")),
    # When the log's clock was last found ahead of the server's: the time by each of them (`ledger.log.log_clock`).
    Column("ahead_from", Time),
    Column("ahead_since", Time),
    PrimaryKeyConstraint("id"),
    CheckConstraint("id = 1", name="id"),
)

# The position that the read models reflect; updated in the transaction that writes them.
projection_checkpoints = Table(
    "projection_checkpoints",
    metadata,
    Column("name", Text, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("updated_at", Time, nullable=False),
    Column("status", Text, nullable=False),
    Column("last_error", JSON),
    PrimaryKeyConstraint("name"),
    CheckConstraint("status IN ('running', 'failing', 'paused')", name="status"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("secret_sha256", LargeBinary, nullable=False),
    # NULL: not restricted to certain campaigns.
    Column("campaign_ids", ARRAY(Uuid)),
    Column("created_at", Time, nullable=False),
    Column("expires_at", Time),
    Column("revoked_at", Time),
    Column("last_used_at", Time),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("name"),
    CheckConstraint("length(name) BETWEEN 1 AND 100", name="name"),
    CheckConstraint("role IN ('viewer', 'agent', 'manager', 'auditor', 'metrics', 'admin')", name="role"),
)

# One row: the secret that derives event ids from an Idempotency-Key. It must never leave the database or the service.
idempotency_secret = Table(
    "idempotency_secret",
    metadata,
    Column("id", Boolean, nullable=False, server_default="true"),
    Column("secret", LargeBinary, nullable=False),
    PrimaryKeyConstraint("id"),
    CheckConstraint("id", name="id"),
)

# Digests of the Idempotency-Keys of the last 24 hours, and of the contents that they were used for.
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("key", LargeBinary, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("first_used_at", Time, nullable=False),
    PrimaryKeyConstraint("key"),
    Index(None, "first_used_at"),
)

# The Merkle tree over the events, as served: a row holds up to 256 hashes of 32 bytes.
log_tiles = Table(
    "log_tiles",
    metadata,
    Column("level", SmallInteger, nullable=False),
    Column("index", BigInteger, nullable=False),
    Column("hashes", LargeBinary, nullable=False),
    PrimaryKeyConstraint("level", "index"),
)

# One row: the sealed size and the signed checkpoint. `refusal` is the reason why the sealer does not sign, if any.
log_checkpoint = Table(
    "log_checkpoint",
    metadata,
    Column("id", SmallInteger, nullable=False, server_default="1"),
    Column("size", BigInteger, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("origin", Text),
    Column("verifier_key", Text),
    Column("note", LargeBinary),
    Column("sealed_at", Time),
    Column("refusal", Text),
    PrimaryKeyConstraint("id"),
    CheckConstraint("id = 1", name="id"),
)

# One row: how far the sealed log was hashed again, when hashing continues, and the change that was found.
reverification = Table(
    "reverification",
    metadata,
    Column("id", SmallInteger, nullable=False, server_default="1"),
    Column("position", BigInteger, nullable=False),
    # NULL between two passes.
    Column("started_at", Time),
    Column("next_at", Time),
    Column("last_full_pass_at", Time),
    Column("changed_position", BigInteger),
    Column("change", Text),
    PrimaryKeyConstraint("id"),
    CheckConstraint("id = 1", name="id"),
)
