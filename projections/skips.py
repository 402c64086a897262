"""Events that an operator let the read models pass, and the two ways on from a pause.

A skip is itself an event, with who and why; nothing else is written. Whoever meets an event that cannot be folded,
worker or replay, looks here: so a skipped event counts again as soon as a release can fold it.
"""

from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    pass

SKIPS = f"""
SELECT data::text AS data, text::text AS text, recorded_at
FROM ledger.ledger_events WHERE type = '{type_of(ProjectionSkipped).name}' ORDER BY position
"""  # noqa: S608 (fixed texts)


class NothingToSkipError(LedgerError):
    """The read models are not stopped by an event."""


class Skip(msgspec.Struct):
    """A skip as it is reported. `reason` is empty once it was erased."""

    position: int
    event_type: str
    by: str
    reason: str
    skipped_at: str


async def read_skips(connection: Connection) -> dict[int, Skip]:
    """Every skip ever decided, by the position of the event skipped."""
    skips = {}
    for row in await connection.fetch(SKIPS):
        said = {**msgspec.json.decode(row["data"]), **msgspec.json.decode(row["text"] or "{}")}
        skips[said["position"]] = Skip(
            said["position"],
            said["event_type"],
            said["by"],
            said.get("reason", ""),
            row["recorded_at"].isoformat(timespec="seconds"),
        )
    return skips


async def skip(database: Database, appender: Appender, *, by: str, reason: str) -> ProjectionSkipped:
    """Let the read models pass the event that stops them; the worker goes on at once.

    Args:
        by: who decided it.

    Raises:
        NothingToSkipError: no event stops them.
    """
    async with database.connection() as connection:
        standing = await checkpoint.read_checkpoint_status(connection)
    failure = standing.failure
    if failure is None or failure.position != standing.position + 1:
        raise NothingToSkipError(f"no event stops the read models: they are {standing.status} at {standing.position}")
    decided = ProjectionSkipped(
        projection=checkpoint.GROUP,
        position=failure.position,
        event_type=failure.type,
        by=by,
        error=failure.error[:2000],
        reason=reason,
    )
    (verdict,) = await appender.append(Request([prepare(type_of(ProjectionSkipped), decided, actor="local")]))
    assert isinstance(verdict, Receipt), verdict
    await retry(database)
    return decided


async def retry(database: Database) -> None:
    """Have the worker try again what it gave up."""
    async with database.connection() as connection:
        await connection.execute(checkpoint.CLEAR_FAILURE)
    await notify_other_processes(database)
