"""Erasure of an event's free text: delete the text and record the erasure, in one transaction."""

from uuid import UUID

import msgspec

from ledger.database import Database
from ledger.domain.catalogue import type_of
from ledger.domain.errors import NotFound, Refused
from ledger.domain.event import Request
from ledger.domain.ledger_events import PayloadErased
from ledger.log.appender import Appender
from ledger.log.prepare import prepare

# None of these columns ever changes, so they can be read before the head lock is taken.
ERASURE_TARGET = "SELECT category, stream_id, type AS event_type, size FROM ledger.events WHERE position = $1"


class Erasure(msgspec.Struct):
    """The event whose text was erased, and the position of the event that records the erasure."""

    position: int
    category: str
    stream_id: UUID
    event_type: str
    recorded_position: int


async def erase(
    database: Database, appender: Appender, position: int, *, by: str, reason: str, actor: str = "local"
) -> Erasure:
    """Erase the free text of an event. On return the log no longer holds it.

    The read models drop the text when they fold the erasure.

    Args:
        database: the database of the log.
        appender: records the erasure.
        position: the position of the event.
        by: the person who decided the erasure.
        reason: 1 to 500 characters; recorded as free text, so it can be erased too.
        actor: the `actor` of the recorded event.

    Returns:
        the erased event and the position of the record.

    Raises:
        NotFound: the log has no such position.
        NothingToErase: the event has no text, or its text was erased before; nothing was recorded.
        Overloaded, DatabaseUnavailable: see `Appender.append`.
    """
    async with database.connection() as connection:
        target = await connection.fetchrow(ERASURE_TARGET, position)
    if target is None:
        raise NotFound(f"there is no event at position {position}")
    payload = PayloadErased(position=position, **target, by=by, reason=reason)
    candidate = prepare(type_of(PayloadErased), payload, actor=actor, stream_id=target["stream_id"])
    (verdict,) = await appender.append(Request([candidate]))
    if isinstance(verdict, Refused):
        raise verdict
    return Erasure(position, target["category"], target["stream_id"], target["event_type"], verdict.position)
