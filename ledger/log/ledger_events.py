"""Events of the category `ledger`: load, under the head lock, what decides them; erase free text.

Erasing free text is the only permitted update of an event.
"""

from collections.abc import Sequence

from ledger.database import Connection
from ledger.domain.event import Candidate, Receipt
from ledger.domain.ledger_events import PayloadErased
from ledger.domain.working_state import RecordedIdentity, WorkingState

LAST_VERSIONS_AND_RECORDED = """
SELECT id, type, data::text AS data, text::text AS text, text_commitment IS NOT NULL AND text IS NULL AS erased,
    occurred_at, correlation_id, causation_id, stream_id, version, position
FROM ledger.ledger_events AS event
WHERE stream_id = ANY ($1) AND (id = ANY ($2) OR NOT EXISTS (
    SELECT FROM ledger.ledger_events AS later WHERE later.stream_id = event.stream_id AND later.version > event.version
))
ORDER BY version
"""

ERASABLE = """
SELECT position, text IS NOT NULL AS has_text FROM ledger.events
WHERE position = ANY ($1) AND text_commitment IS NOT NULL
"""

# The database user of the service may not update events; this function may.
ERASE = "SELECT ledger.erase_text(position) FROM unnest($1::bigint[]) AS position"


async def load_ledger_state(
    connection: Connection, working_state: WorkingState, candidates: Sequence[Candidate]
) -> None:
    """Load the recorded identities, stream versions and erasable texts that decide events of the category `ledger`.

    Args:
        connection: inside the append transaction, with the head lock.
        working_state: receives what was loaded.
        candidates: the events of the category `ledger`.
    """
    streams, ids = [candidate.stream_id for candidate in candidates], [candidate.id for candidate in candidates]
    for row in await connection.fetch(LAST_VERSIONS_AND_RECORDED, streams, ids):
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
    positions = [erasure.position for erasure in _erasures(candidates)]
    for row in await connection.fetch(ERASABLE, positions) if positions else ():
        working_state.erasable[row["position"]] = row["has_text"]


def _erasures(candidates: Sequence[Candidate]) -> list[PayloadErased]:
    return [candidate.payload for candidate in candidates if isinstance(candidate.payload, PayloadErased)]
