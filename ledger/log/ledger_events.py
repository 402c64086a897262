"""The ledger's own events under the lock: what they are judged by, and the one change to an event that there is."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ledger.database import Connection
from ledger.domain.event import Candidate, Receipt
from ledger.domain.ledger_events import PayloadErased
from ledger.domain.working_state import RecordedIdentity, WorkingState

if TYPE_CHECKING:
    pass

VERSIONS_AND_KNOWN = """
SELECT id, type, data::text AS data, text::text AS text, text_commitment IS NOT NULL AND text IS NULL AS erased,
    occurred_at, correlation_id, causation_id, stream_id, version, position
FROM ledger.ledger_events AS event
WHERE stream_id = ANY ($1) AND (id = ANY ($2) OR NOT EXISTS (
    SELECT FROM ledger.ledger_events AS later WHERE later.stream_id = event.stream_id AND later.version > event.version
))
ORDER BY version
"""

ERASABLE = """
SELECT position, text IS NOT NULL AS is_there FROM ledger.events
WHERE position = ANY ($1) AND text_commitment IS NOT NULL
"""

# A user of the service may not update events himself.
ERASE = "SELECT ledger.erase_text(position) FROM unnest($1::bigint[]) AS position"


async def load_ledger_state(
    connection: Connection, working_state: WorkingState, candidates: Sequence[Candidate]
) -> None:
    """Load, under the lock, what events of the category `ledger` are judged by."""
    streams, ids = [candidate.stream_id for candidate in candidates], [candidate.id for candidate in candidates]
    for row in await connection.fetch(VERSIONS_AND_KNOWN, streams, ids):
        working_state.identities["ledger", row["stream_id"], row["id"]] = RecordedIdentity(
            type=row["type"],
            data=row["data"],
            text=row["text"],
            erased=row["erased"],
            occurred_at=row["occurred_at"],
            correlation_id=row["correlation_id"],
            causation_id=row["causation_id"],
            receipt=Receipt(row["id"], row["stream_id"], row["version"], row["position"], False),
        )
        working_state.versions[row["stream_id"]] = row["version"]
    positions = [erased.position for erased in _erasures(candidates)]
    for row in await connection.fetch(ERASABLE, positions) if positions else ():
        working_state.erasable[row["position"]] = row["is_there"]


def _erasures(candidates: Sequence[Candidate]) -> list[PayloadErased]:
    return [candidate.payload for candidate in candidates if isinstance(candidate.payload, PayloadErased)]
