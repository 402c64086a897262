"""Erasures for the tests."""

from typing import Any

from ledger.database import Database
from ledger.domain.catalogue import CATALOGUE
from ledger.domain.event import Request
from ledger.domain.ledger_events import PAYLOAD_ERASED, PayloadErased
from ledger.log.appender import Appender
from ledger.log.erasure import ERASURE_TARGET, Erasure, erase
from ledger.log.prepare import prepare
from tests.log.helpers import query

STORED = """
SELECT position, version, stream_id, category, type, actor, data::text, text::text FROM ledger.events
WHERE category = 'ledger' ORDER BY position
"""


async def erased(database: Database, *positions: int, reason: str = "Requested") -> list[Erasure]:
    """Erase the texts of the events at these positions, one by one."""
    async with Appender(database) as appender:
        return [await erase(database, appender, position, by="somebody", reason=reason) for position in positions]


async def erasing(database: Database, position: int, **changes: Any) -> Request:
    """Return the request that an erasure appends, so that a test can append it itself."""
    ((category, stream_id, event_type, size),) = await query(database, ERASURE_TARGET, position)
    target = {"category": category, "stream_id": stream_id, "event_type": event_type, "size": size, **changes}
    payload = PayloadErased(position=position, **target, by="somebody", reason="Requested")
    return Request([prepare(CATALOGUE[PAYLOAD_ERASED], payload, actor="local", stream_id=stream_id)])
