"""How far the read models have come, and what stops them: one row of `ledger.projection_checkpoints`.

Statuses: `running`; `failing`, it is tried again by itself; `paused`, an operator must decide (`ledger projections`).
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from ledger.database import Connection

if TYPE_CHECKING:
    pass

GROUP = "read_models"
"""The name of the one checkpoint that all read models share, so that they agree with each other at every position."""

TRY_LOCK = """
SELECT position, status FROM ledger.projection_checkpoints WHERE name = 'read_models' FOR UPDATE SKIP LOCKED
"""

LOCK = """
SELECT position FROM ledger.projection_checkpoints WHERE name = 'read_models' FOR UPDATE
"""

READ_POSITION = "SELECT position FROM ledger.projection_checkpoints WHERE name = 'read_models'"

READ = """
SELECT position, status, last_error::text AS last_error FROM ledger.projection_checkpoints WHERE name = 'read_models'
"""

MOVE = """
UPDATE ledger.projection_checkpoints
SET position = $1, updated_at = clock_timestamp(), status = 'running', last_error = NULL
WHERE name = 'read_models'
"""

RECORD_FAILURE = """
UPDATE ledger.projection_checkpoints SET status = $1, last_error = $2
WHERE name = 'read_models' AND status <> 'paused'
"""

CLEAR_FAILURE = """
UPDATE ledger.projection_checkpoints SET status = 'running', last_error = NULL WHERE name = 'read_models'
"""


class Failure(msgspec.Struct):
    """Why the read models stand still: shown by `/v1/projections`, `/readyz` and `ledger status`.

    `position` and `type` are those of the event that cannot be folded; position 0: it is no event's fault.
    """

    type: str
    position: int
    error: str
    failed_at: str

    @classmethod
    def of(cls, error: Exception, position: int = 0, event_type: str | None = None) -> "Failure":
        """Describe an error."""
        said = f"{type(error).__name__}: {error}" if event_type else str(error)
        return cls(event_type or type(error).__name__, position, said, datetime.now(UTC).isoformat(timespec="seconds"))


class CheckpointStatus(msgspec.Struct):
    """Where the read models stand."""

    position: int
    status: str
    failure: Failure | None


async def read_position(connection: Connection) -> int:
    """Return the position that the read models reflect."""
    position = await connection.fetchval(READ_POSITION)
    assert isinstance(position, int)
    return position


async def read_checkpoint_status(connection: Connection) -> CheckpointStatus:
    """Read where the read models stand."""
    row = await connection.fetchrow(READ)
    assert row is not None
    failure = msgspec.json.decode(row["last_error"], type=Failure) if row["last_error"] else None
    return CheckpointStatus(row["position"], row["status"], failure)


async def record_failure(connection: Connection, status: str, failure: Failure) -> None:
    """Write down that the read models fail, or pause; a pause stays as it is until an operator ends it."""
    await connection.execute(RECORD_FAILURE, status, msgspec.json.encode(failure).decode())
