"""Idempotency-Key: event ids derived from it, and the claim of its content.

The ids are computed with a secret of the ledger: otherwise another client could compute them, and use them first.
"""

import hashlib
import hmac
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import NamedTuple
from uuid import UUID, uuid5

import msgspec

from ledger.database import Database
from ledger.database.singleton import require_row
from ledger.domain.codec import EventData, plans_of
from ledger.domain.errors import LedgerError
from ledger.domain.event import Candidate, Claim
from ledger.domain.json_values import COST_MAX, canonical_cost, canonical_json
from ledger.time_slices import in_slices

TABLE = "ledger.idempotency_secret"

LOAD = "SELECT secret FROM ledger.idempotency_secret"

_NAMESPACE = UUID("6f2a3a3e-5c0e-5b64-9f0c-2f0d6a1f6c11")
"""Namespace of the event ids that the first releases derived. Never change it: retries must find their events."""

Content = tuple[bytes, Candidate | None]
"""The content of an event, and the event as the first releases would have named it; None if it has an id of its own."""


class IdempotencyKey(NamedTuple):
    """The Idempotency-Key of a request, with the name of the caller and the secret of the ledger."""

    secret: bytes
    actor: str
    key: str

    def event_id(self, index: int) -> UUID:
        """Return the id of the event with this index if it has none: a UUID of version 8 (RFC 9562)."""
        number = int.from_bytes(self.digest(f"{self.actor}\n{self.key}\n{index}".encode())[:16], "big")
        return UUID(int=number & ~(0xF000 << 64) & ~(0xC000 << 48) | 0x8000 << 64 | 0x8000 << 48)

    def first_release_id(self, index: int) -> UUID:
        """Return the id that the first releases derived."""
        return uuid5(_NAMESPACE, f"{self.actor}\n{self.key}\n{index}")

    def contents(self, decoded: Iterable[Candidate | LedgerError]) -> Iterator[Content]:
        """Yield the content of each candidate of a request."""
        for index, candidate in enumerate(decoded):
            if isinstance(candidate, Candidate):
                has_derived_id = candidate.id == self.event_id(index)
                earlier = _with_id(candidate, self.first_release_id(index)) if has_derived_id else None
                yield _content(candidate), earlier

    def claim(self, contents: Sequence[Content]) -> Claim:
        """Bind the key to this content for 24 hours."""
        return Claim(
            self.digest(f"{self.actor}\n{self.key}".encode()),
            self.digest(b"\n".join(content for content, _ in contents)),
            {index: earlier for index, (_, earlier) in enumerate(contents) if earlier is not None},
        )

    def digest(self, content: bytes) -> bytes:
        """Return a digest that only the ledger can compute."""
        return hmac.digest(self.secret, content, hashlib.sha256)


class IdempotencyKeys:
    """The Idempotency-Keys of a ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._secret: bytes | None = None

    def find(self, actor: str, key: str) -> IdempotencyKey | None:
        """Return the key that a caller sent; None until `load` was called once."""
        return IdempotencyKey(self._secret, actor, key) if self._secret is not None else None

    async def load(self, actor: str, key: str) -> IdempotencyKey:
        """Return the key that a caller sent. The first call loads the secret."""
        if self._secret is None:
            async with self._database.connection() as connection:
                self._secret = bytes(require_row(await connection.fetchrow(LOAD), TABLE)["secret"])
        return IdempotencyKey(self._secret, actor, key)


async def claim_of(key: IdempotencyKey | None, decoded: Sequence[Candidate | LedgerError]) -> Claim | None:
    """Return the claim of a request, computed in time slices; None if it has no Idempotency-Key.

    Args:
        key: the key of the request.
        decoded: its candidates and errors; events without an id have the one that the key gives them.
    """
    if key is None:
        return None
    return key.claim([content async for content in in_slices(key.contents(decoded))])


def _with_id(candidate: Candidate, event_id: UUID) -> Candidate:
    """Give a candidate another id; its stream is named after it if it opens one without naming it."""
    stream_id = event_id if candidate.stream_id == candidate.id else candidate.stream_id
    return msgspec.structs.replace(candidate, id=event_id, stream_id=stream_id)


def _content(candidate: Candidate) -> bytes:
    """Return the content of an event, equal for all spellings of its values; large texts count as they are written."""
    text = candidate.text
    if text is not None and _has_object(type(candidate.payload)) and canonical_cost(body := text.encode()) <= COST_MAX:
        text = canonical_json(body).decode()
    return msgspec.json.encode(
        (
            candidate.event_type.name,
            candidate.stream_id,
            candidate.id,
            candidate.data,
            text,
            candidate.occurred_at,
            candidate.correlation_id,
            candidate.causation_id,
        )
    )


@cache
def _has_object(payload: type[EventData]) -> bool:
    return any(plan.kind == "object" for plan in plans_of(payload))
