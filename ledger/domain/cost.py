"""Costs: `cost.*` event types with their data, and the budget entry folded from a stream's events.

An entry is either recorded at once, or reserved (a hold) and later settled, released or expired.
"""

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
from ledger.domain.event_type import EventType, OlderVersion
from ledger.domain.lifecycle import Transition

EXPIRES_IN_SECONDS_DEFAULT = 900
"""The life of a hold that does not name one."""

Description = Annotated[str, msgspec.Meta(max_length=500, extra=FREE_TEXT)]
AdjustmentReason = Annotated[str, msgspec.Meta(min_length=1, max_length=500, extra=FREE_TEXT)]


class ResourceType(str, Enum):
    """The resource that the money was spent on."""

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
    """Money was spent: a fact, so it is never refused because of a budget."""

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
    """Money was reserved: held until it is settled or released, or until `expires_in` seconds have passed.

    A job takes holds while it is pending or running, a campaign while it is draft or active (version 1: or paused).
    """

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
        """Return the time at which a hold recorded at `recorded_at` expires."""
        return recorded_at + timedelta(seconds=self.expires_in or EXPIRES_IN_SECONDS_DEFAULT)

    def check(self) -> None:
        if not self.amount:
            raise InvalidFieldError("amount", "must be more than 0")


class CostSettled(EventData, frozen=True, kw_only=True):
    """The reserved money was spent; `cost` may be more or less than the hold, and the hold may have expired."""

    cost: Amount
    tokens_used: Count | None = None
    model_used: Label | None = None
    provider: Label | None = None


class CostReleased(EventData, frozen=True, kw_only=True):
    """The reserved money was released without being spent."""

    reason: Reason | None = None


class CostAdjusted(EventData, frozen=True, kw_only=True):
    """The cost of the entry was corrected by `amount`; recorded events are never edited."""

    amount: SignedAmount
    tokens_used: SignedCount | None = None
    reason: AdjustmentReason


class CostExpired(EventData, frozen=True, kw_only=True):
    """The hold expired; written only by the service."""


class CostDenied(EventData, frozen=True, kw_only=True):
    """A hold was refused because of a budget; written only by the service, in a separate stream.

    A caller's same request is recorded once for the same exceeded limits with the same amounts, also if they changed in
    between; the metric `ledger_refusals_total` counts all refusals.
    """

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
    EventType(
        "cost.reserved",
        CostReserved,
        Transition((), "held"),
        (OlderVersion(CostReserved),),
        amount_field="amount",
        opens_hold=True,
    ),
    EventType("cost.settled", CostSettled, Transition(_UNSETTLED, "settled"), amount_field="cost", is_fact=True),
    EventType("cost.released", CostReleased, Transition(("held",), "released")),
    EventType("cost.adjusted", CostAdjusted, Transition(("settled",)), amount_field="amount"),
    EventType("cost.expired", CostExpired, Transition(("held",), "expired"), by_service=True),
    EventType("cost.denied", CostDenied, Transition((), "denied"), by_service=True, denies_hold=True),
)


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A budget entry, folded from the events of its stream."""

    status: str
    version: int
    campaign_id: UUID | None
    agent_job_id: UUID | None
    cost: Decimal = money.ZERO
    tokens_used: int = 0
    held: Decimal = money.ZERO
    expires_at: datetime | None = None


def open_entry(
    payload: CostRecorded | CostReserved | CostDenied,
    campaign_id: UUID | None,
    agent_job_id: UUID | None,
    recorded_at: datetime,
) -> Entry:
    """Fold the first event of an entry.

    Args:
        payload: The data of the event.
        campaign_id: The campaign that the entry counts for, named or inherited from the job.
        agent_job_id: The job that the entry counts for.
        recorded_at: The time of the append.

    Returns:
        The entry at version 1.
    """
    if isinstance(payload, CostRecorded):
        return Entry("settled", 1, campaign_id, agent_job_id, payload.cost, payload.tokens_used or 0)
    if isinstance(payload, CostReserved):
        expires_at = payload.expires_at(recorded_at)
        return Entry("held", 1, campaign_id, agent_job_id, held=payload.amount, expires_at=expires_at)
    return Entry("denied", 1, campaign_id, agent_job_id)


def fold(entry: Entry, payload: EventData) -> Entry:
    """Fold a later event that is allowed into an entry.

    Raises:
        InvalidFieldError: An adjustment would make the cost or the tokens negative.
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
            raise InvalidFieldError("amount", f"would make the entry's cost of {money.plain(entry.cost)} negative")
        if tokens < 0:
            raise InvalidFieldError("tokens_used", f"would make the entry's {entry.tokens_used} tokens negative")
        return msgspec.structs.replace(entry, version=version, cost=cost, tokens_used=tokens)
    assert isinstance(payload, CostReleased | CostExpired), f"{type(payload).__name__} has no fold"
    status = "released" if isinstance(payload, CostReleased) else "expired"
    return msgspec.structs.replace(entry, status=status, version=version, held=money.ZERO)
