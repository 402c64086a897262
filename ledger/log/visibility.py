"""Check whether a caller may see a stream, in a time that does not depend on the stream.

The response time must not reveal to a caller what other campaigns contain.
"""

from uuid import UUID

from ledger.database import Connection
from ledger.domain.access import Caller
from ledger.domain.catalogue import CATALOGUE

MOVABLE_CATEGORIES = frozenset(kind.category for kind in CATALOGUE.values() if kind.changes_campaign)
"""Categories whose streams may count for another campaign later; the others keep that of their first event."""

FIRST_CAMPAIGN = """
SELECT campaign_id FROM ledger.events WHERE category = $1 AND stream_id = $2 AND version = 1 AND position <= $3
"""

LAST_CAMPAIGN = """
SELECT campaign_id FROM ledger.events WHERE category = $1 AND stream_id = $2 AND position <= $3
ORDER BY version DESC LIMIT 1
"""


async def may_see_stream(connection: Connection, caller: Caller, category: str, stream_id: UUID, position: int) -> bool:
    """Whether a caller may see a stream as it was at a position, if it existed then.

    Args:
        connection: to the primary or a replica.
        caller: the caller.
        category: of the stream.
        stream_id: of the stream.
        position: of the log.
    """
    if caller.allowed_campaign_ids is None:
        return True
    if category == "campaign":
        return caller.may_see(stream_id)
    query = LAST_CAMPAIGN if category in MOVABLE_CATEGORIES else FIRST_CAMPAIGN
    return caller.may_see(await connection.fetchval(query, category, stream_id, position))
