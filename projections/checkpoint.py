"""The checkpoint of the read models: the position they reflect, and why they stopped, in one row.

Its status is `running`; `failing`: the worker retries; or `paused`: an operator must decide (`ledger projections`).
"""

from datetime import UTC, datetime

import msgspec

from ledger.database import Connection
from ledger.database.singleton import CHECKPOINT_TABLE, require_row

GROUP = "read_models"
"""The name of the one checkpoint that all read models share, so that they agree with each other at every position."""

READ_POSITION = "SELECT position FROM ledger.projection_checkpoints WHERE name = 'read_models'"

READ_CHECKPOINT = """
SELECT position, status, last_error::text AS last_error FROM ledger.projection_checkpoints WHERE name = 'read_models'
"""

LOCK_CHECKPOINT = """
SELECT position FROM ledger.projection_checkpoints WHERE name = 'read_models' FOR UPDATE
"""

TRY_LOCK_CHECKPOINT = """
SELECT position, status FROM ledger.projection_checkpoints WHERE name = 'read_models' FOR UPDATE SKIP LOCKED
"""

ADVANCE_CHECKPOINT = """
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
    """Why the read models do not advance: shown by `/v1/projections`, `/readyz` and `ledger status`.

    `position` and `type` are those of the event that cannot be folded; position 0: no event is the cause.
    """

    type: str
    position: int
    error: str
    failed_at: str

    @classmethod
    def from_error(cls, error: Exception, position: int = 0, event_type: str | None = None) -> "Failure":
        """Describe an error.

        Args:
            error: what was raised.
            position: of the event that caused it; 0 if none did.
            event_type: the type of that event.

        Returns:
            the failure, which happened now.
        """
        message = f"{type(error).__name__}: {error}" if event_type else str(error)
        failed_at = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(event_type or type(error).__name__, position, message, failed_at)


class CheckpointStatus(msgspec.Struct):
    """The checkpoint as stored."""

    position: int
    status: str
    failure: Failure | None


async def read_position(connection: Connection) -> int:
    """Return the position that the read models reflect."""
    return int(require_row(await connection.fetchval(READ_POSITION), CHECKPOINT_TABLE))


async def read_checkpoint_status(connection: Connection) -> CheckpointStatus:
    """Read the checkpoint."""
    row = require_row(await connection.fetchrow(READ_CHECKPOINT), CHECKPOINT_TABLE)
    return CheckpointStatus(row["position"], row["status"], decode_failure(row["last_error"]))


def decode_failure(last_error: str | None) -> Failure | None:
    """Decode the column `last_error` of the checkpoint."""
    return msgspec.json.decode(last_error, type=Failure) if last_error else None


async def record_failure(connection: Connection, status: str, failure: Failure) -> None:
    """Record a failure; a pause stays until an operator ends it.

    Args:
        connection: of the primary.
        status: `failing` or `paused`.
        failure: why the read models do not advance.
    """
    await connection.execute(RECORD_FAILURE, status, msgspec.json.encode(failure).decode())
