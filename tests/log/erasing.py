"""Erasures as the tests make them."""

from typing import Any

from ledger.database import Database
from ledger.domain.catalogue import CATALOGUE
from ledger.domain.event import Request
from ledger.domain.ledger_events import PAYLOAD_ERASED, PayloadErased
from ledger.log.appender import Appender
from ledger.log.erasure import TARGET, Erasure, erase
from ledger.log.prepare import prepare
from tests.log.helpers import query

STORED = """
SELECT position, version, stream_id, category, type, actor, data::text, text::text FROM ledger.events
WHERE category = 'ledger' ORDER BY position
"""


async def erased(database: Database, *positions: int, reason: str = "Asked for") -> list[Erasure]:
    """Erase the texts of these events, one after the other."""
    async with Appender(database) as appender:
        return [await erase(database, appender, position, by="somebody", reason=reason) for position in positions]


async def erasing(database: Database, position: int, **changes: Any) -> Request:
    """The request that an erasure appends, to be sent by hand."""
    ((category, stream_id, event_type, size),) = await query(database, TARGET, position)
    told = {"category": category, "stream_id": stream_id, "event_type": event_type, "size": size, **changes}
    payload = PayloadErased(position=position, **told, by="somebody", reason="Asked for")
    return Request([prepare(CATALOGUE[PAYLOAD_ERASED], payload, actor="local", stream_id=stream_id)])
