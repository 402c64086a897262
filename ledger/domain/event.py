"""An event before, in and after an append: `Candidate`, `Recorded` (a row of the log), `Receipt`.

Structs that exist once per event are hidden from the garbage collector (`gc=False`): they are never part of a cycle,
and traversing thousands of them took a tenth of the time of folding.
"""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import msgspec

from ledger.domain.codec import EventData
from ledger.domain.event_type import EventType


class Candidate(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An event to be recorded, with everything prepared that does not need the head lock.

    `data` and `text` are the canonical JSON; `text_salt` and `text_commitment` belong to the text.
    `schema_version` decides by which rules it is judged: old ones for an event that is in a log already.
    `occurred_at` is None if the client did not set it. `allowed_campaign_ids` is None if the key is not restricted.
    `is_repeat` is true if the Idempotency-Key of the request was used for other content: only a duplicate is accepted.
    `needs_price` is true for a new event with usage and no cost: its cost is computed when it is judged.
    """

    event_type: EventType
    stream_id: UUID
    id: UUID
    payload: EventData
    schema_version: int
    data: str
    actor: str
    text: str | None = None
    text_salt: bytes | None = None
    text_commitment: str | None = None
    expected_version: int | None = None
    occurred_at: datetime | None = None
    correlation_id: UUID | None = None
    causation_id: UUID | None = None
    allowed_campaign_ids: frozenset[UUID] | None = None
    is_repeat: bool = False
    needs_price: bool = False

    @property
    def identity(self) -> tuple[str, UUID, UUID]:
        """Category, stream and id: two requests with the same identity send the same event."""
        return self.event_type.category, self.stream_id, self.id

    @property
    def uses_prices(self) -> bool:
        """Whether judging it needs the price book."""
        return (
            self.needs_price or self.event_type.category == "price" or getattr(self.payload, "price", None) is not None
        )


class Recorded(NamedTuple):
    """One row of `ledger.events`; the fields are its columns, in order."""

    position: int
    category: str
    stream_id: UUID
    version: int
    id: UUID
    type: str
    schema_version: int
    occurred_at: datetime
    recorded_at: datetime
    actor: str
    campaign_id: UUID | None
    agent_job_id: UUID | None
    correlation_id: UUID | None
    causation_id: UUID | None
    data: str
    text: str | None
    text_salt: bytes | None
    text_commitment: str | None
    over_budget: list[str] | None
    size: int


class Limit(msgspec.Struct, frozen=True, gc=False):
    """A limit that a hold counts for, with the balances after it."""

    scope: str
    id: UUID
    limit: str
    spent: str
    held: str
    available: str


class Receipt(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The answer for an event that is in the log. That of a hold has its `limits`, computed for each answer."""

    id: UUID
    stream_id: UUID
    version: int
    position: int
    duplicate: bool
    over_budget: list[str] | None = None
    limits: list[Limit] | None = None


class Claim(msgspec.Struct, frozen=True, gc=False):
    """What the Idempotency-Key of a request is used for.

    `key` and `content` are digests. `earlier` has, by index, the events as the first releases would have named them.
    """

    key: bytes
    content: bytes
    earlier: dict[int, Candidate]


class Request(msgspec.Struct, frozen=True, gc=False):
    """Events sent together: recorded all or none, or each judged separately (`independent`).

    `claim` is None if the request has no Idempotency-Key.
    """

    candidates: list[Candidate]
    independent: bool = False
    claim: Claim | None = None
