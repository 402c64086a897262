"""Idempotency-Key: event ids derived from it, and the content that it was used for in 24 hours.

The ids are computed with a secret of the ledger: otherwise another client could compute them, and use them first.
"""

import hashlib
import hmac
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, TypeVar
from uuid import UUID, uuid5

import msgspec

from ledger.database import Database
from ledger.database.singleton import require_row
from ledger.domain.codec import EventData, plans_of
from ledger.domain.errors import LedgerError
from ledger.domain.event import Candidate
from ledger.domain.json_values import canonical_json
from ledger.time_slices import in_slices

TABLE = "ledger.idempotency_secret"

LOAD = "SELECT secret FROM ledger.idempotency_secret"

CLAIM = "SELECT is_same, recorded FROM ledger.claim_idempotency_key($1, $2, $3, $4, $5, $6)"

_NAMESPACE = UUID("6f2a3a3e-5c0e-5b64-9f0c-2f0d6a1f6c11")
"""Namespace of the event ids that the first releases derived. Never change it: retries must find their events."""

One = TypeVar("One", Candidate, Candidate | LedgerError)


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

    async def claim(self, key: IdempotencyKey, decoded: Sequence[One]) -> list[One]:
        """Claim a key for the events of a request, unless it was used for others in the last 24 hours.

        Args:
            key: the key of the request.
            decoded: its candidates and errors; events without an id have the one that the key gives them.

        Returns:
            the same, but an event that a first release recorded has the id that it was given then. If the key was used
            for other content, the candidates can only be duplicates.
        """
        contents: list[bytes] = []
        earlier: dict[int, Candidate] = {}
        async for index, one in in_slices(enumerate(decoded)):
            if isinstance(one, Candidate):
                contents.append(_content(one))
                if one.id == key.event_id(index):
                    earlier[index] = _with_id(one, key.first_release_id(index))
        async with self._database.connection() as connection:
            claimed = await connection.fetchrow(
                CLAIM,
                key.digest(f"{key.actor}\n{key.key}".encode()),
                key.digest(b"\n".join(contents)),
                key.actor,
                [candidate.event_type.category for candidate in earlier.values()],
                [candidate.stream_id for candidate in earlier.values()],
                [candidate.id for candidate in earlier.values()],
            )
        assert claimed is not None
        recorded = set(claimed["recorded"] or ())
        result = [
            earlier[index] if index in earlier and earlier[index].id in recorded else one
            for index, one in enumerate(decoded)
        ]
        return result if claimed["is_same"] else [_as_repeat(one) for one in result]


def _with_id(candidate: Candidate, event_id: UUID) -> Candidate:
    """Give a candidate another id; its stream is named after it if it opens one without naming it."""
    stream_id = event_id if candidate.stream_id == candidate.id else candidate.stream_id
    return msgspec.structs.replace(candidate, id=event_id, stream_id=stream_id)


def _as_repeat(one: One) -> One:
    return msgspec.structs.replace(one, is_repeat=True) if isinstance(one, Candidate) else one


def _content(candidate: Candidate) -> bytes:
    """Return the content of an event, equal for all spellings of its values."""
    text = candidate.text
    if text is not None and _has_object(type(candidate.payload)):
        text = canonical_json(text).decode()
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
