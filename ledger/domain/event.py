"""An event on its way into the log: as asked for, as recorded, and the receipt for it.

The structs that there is one of for each event are hidden from the garbage collector (`gc=False`): they are in no
cycle, and to look through thousands of them took a tenth of the time of folding.
"""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import msgspec

from ledger.domain.codec import EventData
from ledger.domain.event_type import EventType


class Candidate(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An event that asks to be recorded, with everything done that can be done before the lock.

    `data` and `text` are the canonical JSON, `text_salt` and `text_commitment` go with the text.
    `occurred_at` is None where the sender left it to the ledger. `allowed_campaign_ids` are the campaigns that the
    sender may touch; None: any.
    """

    event_type: EventType
    stream_id: UUID
    id: UUID
    payload: EventData
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

    @property
    def identity(self) -> tuple[str, UUID, UUID]:
        """What makes two sendings the same event: category, stream, id."""
        return self.event_type.category, self.stream_id, self.id


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


class Receipt(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The answer to an event that is in the log."""

    id: UUID
    stream_id: UUID
    version: int
    position: int
    duplicate: bool
    over_budget: list[str] | None = None


class Request(msgspec.Struct, frozen=True, gc=False):
    """Candidates sent together: all or nothing, or each judged by itself (`independent`)."""

    candidates: list[Candidate]
    independent: bool = False
