"""Costs: a stream is one budget entry, recorded at once, or reserved and then settled, released or expired."""

from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any
from uuid import UUID

import msgspec

from ledger.domain import money
from ledger.domain.codec import (
    FREE_TEXT,
    Amount,
    Count,
    Currency,
    EventData,
    InvalidFieldError,
    Label,
    Reason,
    SignedAmount,
    SignedCount,
)
from ledger.domain.event_type import EventType
from ledger.domain.lifecycle import Transition

EXPIRES_IN_SECONDS_DEFAULT = 900

Description = Annotated[str, msgspec.Meta(max_length=500, extra=FREE_TEXT)]
AdjustmentReason = Annotated[str, msgspec.Meta(min_length=1, max_length=500, extra=FREE_TEXT)]


class ResourceType(str, Enum):
    """What the money went to."""

    OPENAI_API = "openai_api"
    WEB_SEARCH = "web_search"
    FILE_SEARCH = "file_search"
    IMAGE_GENERATION = "image_generation"
    EMBEDDING = "embedding"
    LLM_API = "llm_api"
    MEDIA = "media"
    OTHER = "other"


class EntryStatus(str, Enum):
    """The status of a budget entry."""

    HELD = "held"
    SETTLED = "settled"
    RELEASED = "released"
    EXPIRED = "expired"


class CostRecorded(EventData, frozen=True, kw_only=True):
    """Money is gone: a fact, never refused for money."""

    resource_type: ResourceType
    cost: Amount
    currency: Currency | None = None
    tokens_used: Count | None = None
    model_used: Label | None = None
    provider: Label | None = None
    description: Description | None = None
    agent_job_id: UUID | None = None
    campaign_id: UUID | None = None


class CostReserved(EventData, frozen=True, kw_only=True):
    """Money is asked for: held until settled, released or `expires_in` seconds have passed."""

    resource_type: ResourceType
    amount: Amount
    currency: Currency | None = None
    expires_in: Annotated[int, msgspec.Meta(ge=1, le=86_400)] | None = EXPIRES_IN_SECONDS_DEFAULT
    model_used: Label | None = None
    provider: Label | None = None
    description: Description | None = None
    agent_job_id: UUID | None = None
    campaign_id: UUID | None = None

    def expires_at(self, recorded_at: datetime) -> datetime:
        """When the hold runs out, if it was recorded then."""
        return recorded_at + timedelta(seconds=self.expires_in or EXPIRES_IN_SECONDS_DEFAULT)

    def check(self) -> None:
        if not self.amount:
            raise InvalidFieldError("amount", "must be more than 0")


class CostSettled(EventData, frozen=True, kw_only=True):
    """What was held has been spent, more or less than held, also after the hold has gone."""

    cost: Amount
    tokens_used: Count | None = None
    model_used: Label | None = None
    provider: Label | None = None


class CostReleased(EventData, frozen=True, kw_only=True):
    """What was held is free again."""

    reason: Reason | None = None


class CostAdjusted(EventData, frozen=True, kw_only=True):
    """A correction: nothing is ever edited."""

    amount: SignedAmount
    tokens_used: SignedCount | None = None
    reason: AdjustmentReason


class CostExpired(EventData, frozen=True, kw_only=True):
    """The hold ran out; written by the service alone."""


class CostDenied(EventData, frozen=True, kw_only=True):
    """A hold was refused for money; written by the service alone, in a stream of its own."""

    reserve_stream_id: UUID
    reserve_id: UUID
    resource_type: ResourceType
    amount: Amount
    currency: Currency
    expires_in: int
    model_used: Label | None = None
    provider: Label | None = None
    description: Description | None = None
    agent_job_id: UUID | None = None
    campaign_id: UUID | None = None
    scopes: list[dict[str, Any]]


_UNSETTLED = ("held", "expired", "released")

EVENTS = (
    EventType("cost.recorded", CostRecorded, Transition((), "settled"), amount_field="cost", is_fact=True),
    EventType("cost.reserved", CostReserved, Transition((), "held"), amount_field="amount", opens_hold=True),
    EventType("cost.settled", CostSettled, Transition(_UNSETTLED, "settled"), amount_field="cost", is_fact=True),
    EventType("cost.released", CostReleased, Transition(("held",), "released")),
    EventType("cost.adjusted", CostAdjusted, Transition(("settled",)), amount_field="amount"),
    EventType("cost.expired", CostExpired, Transition(("held",), "expired"), by_service=True),
    EventType("cost.denied", CostDenied, Transition((), "denied"), by_service=True, denies_hold=True),
)


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A budget entry as its own events make it."""

    status: str
    version: int
    campaign_id: UUID | None
    agent_job_id: UUID | None
    cost: Decimal = money.ZERO
    tokens_used: int = 0
    held: Decimal = money.ZERO
    expires_at: datetime | None = None


def opened(
    payload: CostRecorded | CostReserved | CostDenied,
    campaign_id: UUID | None,
    agent_job_id: UUID | None,
    recorded_at: datetime,
) -> Entry:
    """The entry after its first event; the ids are those the event was resolved to."""
    if isinstance(payload, CostRecorded):
        return Entry("settled", 1, campaign_id, agent_job_id, payload.cost, payload.tokens_used or 0)
    if isinstance(payload, CostReserved):
        expires_at = payload.expires_at(recorded_at)
        return Entry("held", 1, campaign_id, agent_job_id, held=payload.amount, expires_at=expires_at)
    return Entry("denied", 1, campaign_id, agent_job_id)


def fold(entry: Entry, payload: EventData) -> Entry:
    """The entry after a later event that was allowed.

    Raises:
        InvalidFieldError: an adjustment would take the cost or the tokens below zero.
    """
    version = entry.version + 1
    if isinstance(payload, CostSettled):
        tokens = payload.tokens_used or 0
        return msgspec.structs.replace(
            entry, status="settled", version=version, cost=payload.cost, tokens_used=tokens, held=money.ZERO
        )
    if isinstance(payload, CostAdjusted):
        cost = money.add(entry.cost, payload.amount)
        tokens = entry.tokens_used + (payload.tokens_used or 0)
        if cost < 0:
            raise InvalidFieldError("amount", f"would take the entry's cost of {money.plain(entry.cost)} below zero")
        if tokens < 0:
            raise InvalidFieldError("tokens_used", f"would take the entry's {entry.tokens_used} tokens below zero")
        return msgspec.structs.replace(entry, version=version, cost=cost, tokens_used=tokens)
    status = "released" if isinstance(payload, CostReleased) else "expired"
    return msgspec.structs.replace(entry, status=status, version=version, held=money.ZERO)
