"""Costs: `cost.*` event types and their data.

A budget entry is either recorded at once, or reserved (a hold) and later settled, released or expired.
"""

from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

from ledger.domain.codec import EventData, InvalidFieldError
from ledger.domain.cost_v1 import CostReservedV1
from ledger.domain.event_type import EventType, OlderVersion
from ledger.domain.fields import (
    FREE_TEXT,
    Amount,
    Count,
    Currency,
    Labels,
    Name,
    PricePosition,
    Reason,
    SignedAmount,
    SignedCount,
    SpanId,
    TraceId,
    known_values,
)
from ledger.domain.lifecycle import Transition
from ledger.domain.original import Original
from ledger.domain.usage import Usage

EXPIRES_IN_SECONDS_DEFAULT = 900
"""The life of a hold that does not name one."""

ExpiresIn = Annotated[int, msgspec.Meta(ge=1, le=604_800)]
"""The life of a hold in seconds, at most a week."""

Description = Annotated[str, msgspec.Meta(max_length=500, extra=FREE_TEXT)]
AdjustmentReason = Annotated[str, msgspec.Meta(min_length=1, max_length=500, extra=FREE_TEXT)]


ResponseId = Annotated[str, msgspec.Meta(min_length=1, max_length=255, description="The provider's id of its reply.")]

ServiceTier = Literal["standard", "batch", "flex", "priority"]
"""The provider's class of service, on which its prices depend."""


class ResourceType(str, Enum):
    """Known resources that money is spent on."""

    OPENAI_API = "openai_api"
    WEB_SEARCH = "web_search"
    FILE_SEARCH = "file_search"
    IMAGE_GENERATION = "image_generation"
    EMBEDDING = "embedding"
    LLM_API = "llm_api"
    TOOL = "tool"
    AUDIO = "audio"
    COMPUTE = "compute"
    STORAGE = "storage"
    MEDIA = "media"
    OTHER = "other"


Resource = Annotated[str, known_values(ResourceType)]


class EntryStatus(str, Enum):
    """The status of a budget entry."""

    HELD = "held"
    SETTLED = "settled"
    RELEASED = "released"
    EXPIRED = "expired"


class CostRecorded(EventData, frozen=True, kw_only=True):
    """Money was spent: a fact, so it is never refused because of a budget."""

    resource_type: Resource
    cost: Amount | None = None
    currency: Currency | None = None
    tokens_used: Count | None = None
    model_used: Name | None = None
    provider: Name | None = None
    description: Description | None = None
    agent_job_id: UUID | None = None
    campaign_id: UUID | None = None
    usage: Usage | None = None
    service_tier: ServiceTier | None = None
    response_id: ResponseId | None = None
    labels: Labels | None = None
    trace_id: TraceId | None = None
    span_id: SpanId | None = None
    original: Original | None = None
    price: PricePosition | None = None

    def check(self) -> None:
        _require_amount("cost", self.cost, self.usage, self.price)

    @property
    def tokens(self) -> int:
        """Input and output tokens, as sent or by the usage."""
        return tokens_of(self.tokens_used, self.usage)


class CostReserved(EventData, frozen=True, kw_only=True):
    """Money was reserved: held until it is settled or released, or until `expires_in` seconds have passed.

    A job takes holds while it is pending or running, a campaign while it is draft or active (version 1: or paused).
    """

    resource_type: Resource
    amount: Amount | None = None
    currency: Currency | None = None
    expires_in: ExpiresIn | None = EXPIRES_IN_SECONDS_DEFAULT
    model_used: Name | None = None
    provider: Name | None = None
    description: Description | None = None
    agent_job_id: UUID | None = None
    campaign_id: UUID | None = None
    usage: Usage | None = None
    service_tier: ServiceTier | None = None
    response_id: ResponseId | None = None
    labels: Labels | None = None
    trace_id: TraceId | None = None
    span_id: SpanId | None = None
    original: Original | None = None
    price: PricePosition | None = None

    def expires_at(self, recorded_at: datetime) -> datetime:
        """Return the time at which a hold recorded at `recorded_at` expires."""
        return recorded_at + timedelta(seconds=self.expires_in or EXPIRES_IN_SECONDS_DEFAULT)

    def check(self) -> None:
        _require_amount("amount", self.amount, self.usage, self.price)
        # A computed amount may be 0, if the price says that the units are free.
        if self.amount == 0 and self.price is None:
            raise InvalidFieldError("amount", "must be more than 0")
        if self.amount is None and self.usage is not None and self.usage.is_zero:
            raise InvalidFieldError("usage", "must have a counter of more than 0, if no `amount` is sent")


class CostSettled(EventData, frozen=True, kw_only=True):
    """The reserved money was spent; `cost` may be more or less than the hold, and the hold may have expired."""

    cost: Amount | None = None
    tokens_used: Count | None = None
    model_used: Name | None = None
    provider: Name | None = None
    usage: Usage | None = None
    service_tier: ServiceTier | None = None
    response_id: ResponseId | None = None
    labels: Labels | None = None
    price: PricePosition | None = None

    def check(self) -> None:
        _require_amount("cost", self.cost, self.usage, self.price)

    @property
    def tokens(self) -> int:
        """Input and output tokens, as sent or by the usage."""
        return tokens_of(self.tokens_used, self.usage)


class CostExtended(EventData, frozen=True, kw_only=True):
    """The hold was extended: it expires `expires_in` seconds after this event, sooner or later than before."""

    expires_in: ExpiresIn

    def expires_at(self, recorded_at: datetime) -> datetime:
        """Return the time at which a hold extended at `recorded_at` expires."""
        return recorded_at + timedelta(seconds=self.expires_in)


class CostCredited(EventData, frozen=True, kw_only=True):
    """Money came back: a refund or a credit note. The entry's cost is `amount` with a negative sign."""

    resource_type: Resource
    amount: Amount
    reason: AdjustmentReason
    currency: Currency | None = None
    model_used: Name | None = None
    provider: Name | None = None
    description: Description | None = None
    agent_job_id: UUID | None = None
    campaign_id: UUID | None = None
    service_tier: ServiceTier | None = None
    response_id: ResponseId | None = None
    labels: Labels | None = None
    trace_id: TraceId | None = None
    span_id: SpanId | None = None
    original: Original | None = None

    def check(self) -> None:
        if not self.amount:
            raise InvalidFieldError("amount", "must be more than 0")


class CostPriced(EventData, frozen=True, kw_only=True):
    """An unpriced entry got its cost by a price that was published later; written only by the service."""

    cost: Amount
    price: PricePosition


class CostReleased(EventData, frozen=True, kw_only=True):
    """The reserved money was released without being spent."""

    reason: Reason | None = None


class CostAdjusted(EventData, frozen=True, kw_only=True):
    """The cost of the entry was corrected by `amount`; recorded events are never edited.

    With `price`, the service corrected a computed cost because another price was published for the time of the call.
    """

    amount: SignedAmount
    tokens_used: SignedCount | None = None
    reason: AdjustmentReason
    price: PricePosition | None = None


class CostExpired(EventData, frozen=True, kw_only=True):
    """The hold expired; written only by the service."""


class CostDenied(EventData, frozen=True, kw_only=True):
    """A hold was refused because of a budget; written only by the service, in a separate stream.

    A caller's same request is recorded once for the same exceeded limits with the same amounts, also if they changed in
    between; the metric `ledger_refusals_total` counts all refusals.
    """

    reserve_stream_id: UUID
    reserve_id: UUID
    resource_type: Resource
    amount: Amount
    currency: Currency
    expires_in: int
    model_used: Name | None = None
    provider: Name | None = None
    description: Description | None = None
    agent_job_id: UUID | None = None
    campaign_id: UUID | None = None
    scopes: list[dict[str, Any]]
    usage: Usage | None = None
    service_tier: ServiceTier | None = None
    response_id: ResponseId | None = None
    labels: Labels | None = None
    trace_id: TraceId | None = None
    span_id: SpanId | None = None
    original: Original | None = None
    price: PricePosition | None = None


def _require_amount(field: str, amount: Decimal | None, usage: Usage | None, price: int | None) -> None:
    if amount is None and usage is None:
        raise InvalidFieldError(field, f"Object missing required field `{field}`, which only `usage` may replace")
    if amount is None and usage is not None and not usage.names_counter:
        raise InvalidFieldError("usage", f"names no counter, so it cannot replace `{field}`")
    if price is not None and (amount is None or usage is None):
        raise InvalidFieldError("price", f"needs `usage`, and the `{field}` that was computed")


def tokens_of(tokens_used: int | None, usage: Usage | None) -> int:
    """Return the tokens that an event reports: those sent, or else those of the usage."""
    if tokens_used is not None:
        return tokens_used
    return usage.tokens if usage is not None else 0


_UNSETTLED = ("held", "expired", "released")

EVENTS = (
    EventType("cost.recorded", CostRecorded, Transition((), "settled"), amount_field="cost", is_fact=True),
    EventType(
        "cost.reserved",
        CostReserved,
        Transition((), "held"),
        (OlderVersion(CostReservedV1),),
        amount_field="amount",
        opens_hold=True,
    ),
    EventType("cost.settled", CostSettled, Transition(_UNSETTLED, "settled"), amount_field="cost", is_fact=True),
    EventType("cost.extended", CostExtended, Transition(("held",)), extends_hold=True),
    EventType("cost.credited", CostCredited, Transition((), "settled"), amount_field="amount", is_credit=True),
    EventType("cost.priced", CostPriced, Transition(("settled",)), by_service=True, amount_field="cost", is_fact=True),
    EventType("cost.released", CostReleased, Transition(("held",), "released")),
    EventType("cost.adjusted", CostAdjusted, Transition(("settled",)), amount_field="amount"),
    EventType("cost.expired", CostExpired, Transition(("held",), "expired"), by_service=True),
    EventType("cost.denied", CostDenied, Transition((), "denied"), by_service=True, denies_hold=True),
)
