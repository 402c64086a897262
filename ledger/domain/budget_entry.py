"""Budget entries: the state of a cost stream, folded from its events."""

from datetime import datetime
from decimal import Decimal
from uuid import UUID

import msgspec

from ledger.domain import money
from ledger.domain.codec import EventData, InvalidFieldError
from ledger.domain.cost import (
    CostAdjusted,
    CostCredited,
    CostDenied,
    CostExpired,
    CostExtended,
    CostPriced,
    CostRecorded,
    CostReleased,
    CostReserved,
    CostSettled,
)

OPENING = (CostRecorded, CostReserved, CostCredited)
"""The data of the events that open an entry. Built once: `isinstance` with `A | B` builds the union each time."""

Opening = CostRecorded | CostReserved | CostCredited


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A budget entry, folded from the events of its stream.

    `currency` is the one that was named; None if it is that of the campaign or job. `labels` are those of the entry
    itself. A settlement inherits what its reservation says, unless it says otherwise.
    """

    status: str
    version: int
    campaign_id: UUID | None
    agent_job_id: UUID | None
    cost: Decimal = money.ZERO
    tokens_used: int = 0
    held: Decimal = money.ZERO
    expires_at: datetime | None = None
    is_credit: bool = False
    unpriced: bool = False
    currency: str | None = None
    provider: str | None = None
    model_used: str | None = None
    service_tier: str | None = None
    resource_type: str | None = None
    labels: dict[str, str] | None = None


def open_entry(
    payload: Opening | CostDenied, campaign_id: UUID | None, agent_job_id: UUID | None, recorded_at: datetime
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
    if isinstance(payload, CostDenied):
        return Entry("denied", 1, campaign_id, agent_job_id)
    status, cost, tokens, held, expires_at = "settled", money.ZERO, 0, money.ZERO, None
    if isinstance(payload, CostRecorded):
        cost, tokens = payload.cost or money.ZERO, payload.tokens
    elif isinstance(payload, CostReserved):
        status, held, expires_at = "held", payload.amount or money.ZERO, payload.expires_at(recorded_at)
    else:
        cost = money.negated(payload.amount)
    # By position: an entry is made for each append, and naming its attributes takes twice as long.
    return Entry(
        status,
        1,
        campaign_id,
        agent_job_id,
        cost,
        tokens,
        held,
        expires_at,
        isinstance(payload, CostCredited),
        isinstance(payload, CostRecorded) and payload.cost is None,
        payload.currency,
        payload.provider,
        payload.model_used,
        payload.service_tier,
        payload.resource_type,
        payload.labels,
    )


def fold(entry: Entry, payload: EventData, recorded_at: datetime) -> Entry:
    """Fold a later event that is allowed into an entry.

    Args:
        entry: The entry before the event.
        payload: The data of the event.
        recorded_at: The time of the append.

    Returns:
        The entry after the event.

    Raises:
        InvalidFieldError: An adjustment is not possible.
    """
    if isinstance(payload, CostSettled):
        return _settled(entry, payload)
    version = entry.version + 1
    if isinstance(payload, CostPriced):
        return msgspec.structs.replace(entry, version=version, cost=payload.cost, unpriced=False)
    if isinstance(payload, CostAdjusted):
        cost, tokens = _adjusted(entry, payload)
        return msgspec.structs.replace(entry, version=version, cost=cost, tokens_used=tokens)
    if isinstance(payload, CostExtended):
        return msgspec.structs.replace(entry, version=version, expires_at=payload.expires_at(recorded_at))
    assert isinstance(payload, CostReleased | CostExpired), f"{type(payload).__name__} has no fold"
    status = "released" if isinstance(payload, CostReleased) else "expired"
    return msgspec.structs.replace(entry, status=status, version=version, held=money.ZERO)


def _adjusted(entry: Entry, payload: CostAdjusted) -> tuple[Decimal, int]:
    """Return cost and tokens after an adjustment: a cost stays at least 0, a credit stays at most 0."""
    cost = money.add(entry.cost, payload.amount)
    tokens = entry.tokens_used + (payload.tokens_used or 0)
    if entry.is_credit:
        if cost > 0:
            raise InvalidFieldError("amount", f"would make the credit of {money.plain(-entry.cost)} a cost")
        if tokens:
            raise InvalidFieldError("tokens_used", "a credit has no tokens")
    elif cost < 0:
        raise InvalidFieldError("amount", f"would make the entry's cost of {money.plain(entry.cost)} negative")
    elif tokens < 0:
        raise InvalidFieldError("tokens_used", f"would make the entry's {entry.tokens_used} tokens negative")
    return cost, tokens


def _settled(entry: Entry, payload: CostSettled) -> Entry:
    labels = entry.labels
    if payload.labels:
        labels = labels | payload.labels if labels else payload.labels
    return Entry(
        "settled",
        entry.version + 1,
        entry.campaign_id,
        entry.agent_job_id,
        payload.cost or money.ZERO,
        payload.tokens,
        money.ZERO,
        entry.expires_at,
        entry.is_credit,
        payload.cost is None,
        entry.currency,
        entry.provider if payload.provider is None else payload.provider,
        entry.model_used if payload.model_used is None else payload.model_used,
        payload.service_tier or entry.service_tier,
        entry.resource_type,
        labels,
    )
