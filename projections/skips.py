"""Events that an operator decided to skip, and how a pause of the read models ends: retry or skip.

A skip is itself an event, with the operator and the reason; nothing else is written. The worker and every replay read
the skips only when an event cannot be folded, so a skipped event counts again once a release can fold it.
"""

import msgspec

from ledger.database import Connection, Database
from ledger.domain.catalogue import type_of
from ledger.domain.errors import LedgerError
from ledger.domain.event import Receipt, Request
from ledger.domain.ledger_events import ProjectionSkipped
from ledger.log.appender import Appender
from ledger.log.notifications import notify_other_processes
from ledger.log.prepare import prepare
from projections import checkpoint

SKIPS = f"""
SELECT data::text AS data, text::text AS text, recorded_at
FROM ledger.ledger_events WHERE type = '{type_of(ProjectionSkipped).name}' ORDER BY position
"""  # noqa: S608 (fixed text)

ERROR_CHARACTERS_MAX = 2000


class NothingToSkipError(LedgerError):
    """The read models are not stopped by an event."""


class Skip(msgspec.Struct):
    """A skip as it is shown. `reason` is empty once it was erased."""

    position: int
    event_type: str
    by: str
    reason: str
    skipped_at: str


async def read_skips(connection: Connection) -> dict[int, Skip]:
    """Return every skip in the log, by the position of the skipped event."""
    skips = {}
    for row in await connection.fetch(SKIPS):
        fields = {**msgspec.json.decode(row["data"]), **msgspec.json.decode(row["text"] or "{}")}
        skips[fields["position"]] = Skip(
            fields["position"],
            fields["event_type"],
            fields["by"],
            fields.get("reason", ""),
            row["recorded_at"].isoformat(timespec="seconds"),
        )
    return skips


async def skip(
    database: Database, appender: Appender, *, by: str, reason: str, actor: str = "local"
) -> ProjectionSkipped:
    """Skip the event that stops the read models; the worker continues at once.

    Args:
        database: reads the failure and clears it.
        appender: records the skip.
        by: the operator.
        reason: free text.
        actor: the `actor` of the recorded event.

    Returns:
        the recorded skip.

    Raises:
        NothingToSkipError: no event stops the read models.
    """
    async with database.connection() as connection:
        status = await checkpoint.read_checkpoint_status(connection)
    failure = status.failure
    if failure is None or failure.position != status.position + 1:
        raise NothingToSkipError(
            f"no event stops the read models: they are {status.status} at position {status.position}"
        )
    skipped = ProjectionSkipped(
        projection=checkpoint.GROUP,
        position=failure.position,
        event_type=failure.type,
        by=by,
        error=failure.error[:ERROR_CHARACTERS_MAX],
        reason=reason,
    )
    (receipt,) = await appender.append(Request([prepare(type_of(ProjectionSkipped), skipped, actor=actor)]))
    assert isinstance(receipt, Receipt), receipt
    await retry(database)
    return skipped


async def retry(database: Database) -> None:
    """Clear the failure of the read models and wake the worker, which tries again."""
    async with database.connection() as connection:
        await connection.execute(checkpoint.CLEAR_FAILURE)
    await notify_other_processes(database)
