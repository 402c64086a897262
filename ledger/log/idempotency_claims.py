"""Claims of Idempotency-Keys: one statement for all requests of a group, before it is judged.

The claims are committed before the events, so a key is taken even if its request is then refused. A group that is
judged again claims again, which changes nothing.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from ledger.database import Connection
from ledger.domain.event import Candidate, Request

# The slices of the arrays from $6 on are the events of a request.
CLAIM = """
SELECT claimed.is_same, claimed.recorded
FROM unnest($1::bytea[], $2::bytea[], $3::text[], $4::int[], $5::int[]) WITH ORDINALITY
    AS sent (key, content, actor, first_event, last_event, number)
CROSS JOIN LATERAL ledger.claim_idempotency_key(
    sent.key, sent.content, sent.actor, ($6::text[])[first_event:last_event], ($7::uuid[])[first_event:last_event],
    ($8::uuid[])[first_event:last_event]
) AS claimed
ORDER BY number
"""


async def claim_keys(connection: Connection, requests: Sequence[Request]) -> Sequence[Request]:
    """Claim the Idempotency-Keys of requests, unless they were used for other content in the last 24 hours.

    Args:
        connection: outside any transaction.
        requests: those of a group; most have no key.

    Returns:
        the requests as they must be judged: an event that a first release recorded has the id that it was given then.
        If a key was used for other content, the events of its request can only be duplicates.
    """
    # In the order of the keys: two processes that claim the same ones cannot deadlock.
    keyed = sorted((request.claim.key, index) for index, request in enumerate(requests) if request.claim is not None)
    if not keyed:
        return requests
    rows = await connection.fetch(CLAIM, *_arguments([requests[index] for _, index in keyed]))
    claimed = list(requests)
    for (_, index), row in zip(keyed, rows, strict=True):
        claimed[index] = _claimed(requests[index], row["is_same"], set(row["recorded"] or ()))
    return claimed


def _arguments(requests: Sequence[Request]) -> list[list[Any]]:
    """Return the arguments of `CLAIM`."""
    sent: list[tuple[bytes, bytes, str, int, int]] = []
    events: list[tuple[str, UUID, UUID]] = []
    for request in requests:
        claim = request.claim
        assert claim is not None
        first = len(events) + 1
        events += [earlier.identity for earlier in claim.earlier.values()]
        sent.append((claim.key, claim.content, request.candidates[0].actor, first, len(events)))
    return [[row[i] for row in sent] for i in range(5)] + [[event[i] for event in events] for i in range(3)]


def _claimed(request: Request, is_same: bool, recorded: set[UUID]) -> Request:
    claim = request.claim
    assert claim is not None
    if is_same and not recorded:
        return request

    def claimed(index: int, candidate: Candidate) -> Candidate:
        earlier = claim.earlier.get(index, candidate)
        return msgspec.structs.replace(earlier if earlier.id in recorded else candidate, is_repeat=not is_same)

    candidates = [claimed(index, candidate) for index, candidate in enumerate(request.candidates)]
    return msgspec.structs.replace(request, candidates=candidates)
