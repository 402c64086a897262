"""Campaigns: `campaign.*` event types, data and statuses, and the state that judges later events."""

from datetime import datetime
from enum import Enum
from typing import Annotated

import msgspec

from ledger.domain.codec import EventData, InvalidFieldError
from ledger.domain.event_type import EventType
from ledger.domain.fields import FREE_TEXT, TITLE, Amount, Count, Currency, Day, Labels, Reason
from ledger.domain.lifecycle import DELETED, Transition
from ledger.domain.money import DEFAULT_CURRENCY

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255, extra=TITLE)]
Description = Annotated[str, msgspec.Meta(max_length=1000, extra=FREE_TEXT)]


class CampaignStatus(str, Enum):
    """The status of a campaign."""

    DRAFT = "draft"
    ACTIVE = "active"
    PAUSED = "paused"
    COMPLETED = "completed"
    ARCHIVED = "archived"


class CampaignCreated(EventData, frozen=True, kw_only=True):
    """A campaign was created as a draft. Without a budget (null) it has no limit."""

    name: Name
    description: Description | None = None
    budget: Amount | None
    currency: Currency | None = DEFAULT_CURRENCY
    start_date: Day
    end_date: Day | None = None
    labels: Labels | None = None

    @property
    def budget_currency(self) -> str:
        """The currency of the budget and of all costs of the campaign."""
        return self.currency or DEFAULT_CURRENCY

    def check(self) -> None:
        if self.end_date is not None and self.end_date < self.start_date:
            raise InvalidFieldError("end_date", "must not be before start_date")


class CampaignDetailsChanged(EventData, frozen=True, kw_only=True):
    """Details of the campaign were changed; absent fields keep their values."""

    name: Name | None = None
    description: Description | None = None
    start_date: Day | None = None
    end_date: Day | None = None


class CampaignBudgetChanged(EventData, frozen=True, kw_only=True):
    """The budget was changed; null removes the limit, an absent `budget` changes nothing.

    It may be less than what is spent; holds are then refused.
    """

    budget: Amount | None | msgspec.UnsetType = msgspec.UNSET
    reason: Reason | None = None


class CampaignActivated(EventData, frozen=True, kw_only=True):
    """The campaign was activated."""

    reason: Reason | None = None


class CampaignPaused(EventData, frozen=True, kw_only=True):
    """The campaign was paused: it takes no holds until it is activated. Holds from before stay and can be settled."""

    reason: Reason | None = None


class CampaignCompleted(EventData, frozen=True, kw_only=True):
    """The campaign was completed: it takes no holds and no jobs any more."""

    reason: Reason | None = None


class CampaignArchived(EventData, frozen=True, kw_only=True):
    """The campaign was archived: it takes no holds and no jobs any more."""

    reason: Reason | None = None


class CampaignMetricsRecorded(EventData, frozen=True, kw_only=True):
    """Metrics of the campaign since they were last recorded; they are added up."""

    impressions: Count | None = None
    clicks: Count | None = None
    conversions: Count | None = None
    revenue: Amount | None = None


class CampaignDeleted(EventData, frozen=True, kw_only=True):
    """The campaign was deleted; possible only if nothing is spent or held on it."""

    reason: Reason | None = None


_LIVE = ("draft", "active", "paused", "completed")

_STARTED = ("active", "paused", "completed", "archived")

EVENTS = (
    EventType("campaign.created", CampaignCreated, Transition((), "draft"), sets_budget=True),
    EventType("campaign.details_changed", CampaignDetailsChanged, Transition(_LIVE)),
    EventType("campaign.budget_changed", CampaignBudgetChanged, Transition(_LIVE), sets_budget=True),
    EventType("campaign.activated", CampaignActivated, Transition(("draft", "paused"), "active")),
    EventType("campaign.paused", CampaignPaused, Transition(("active",), "paused")),
    EventType("campaign.completed", CampaignCompleted, Transition(("active", "paused"), "completed")),
    EventType("campaign.archived", CampaignArchived, Transition(_LIVE, "archived")),
    EventType("campaign.metrics_recorded", CampaignMetricsRecorded, Transition(_STARTED)),
    EventType("campaign.deleted", CampaignDeleted, Transition(("draft", "archived"), DELETED)),
)


class CampaignState(msgspec.Struct, frozen=True, array_like=True):
    """The decision state of a campaign. Its budget is not here: it is the limit of the campaign's account."""

    status: str
    currency: str
    start_date: datetime
    end_date: datetime | None


def fold(state: CampaignState | None, payload: EventData, transition: Transition) -> CampaignState:
    """Fold an event, in a status that allows it, into the decision state.

    Args:
        state: The state before the event; None for the first event.
        payload: The data of the event.
        transition: The transition of its type.

    Returns:
        The state after the event.

    Raises:
        InvalidFieldError: The campaign would end before it starts.
    """
    if isinstance(payload, CampaignCreated):
        return CampaignState("draft", payload.budget_currency, payload.start_date, payload.end_date)
    assert state is not None
    if isinstance(payload, CampaignDetailsChanged):
        start, end = payload.start_date or state.start_date, payload.end_date or state.end_date
        if end is not None and end < start:
            changed = "end_date" if payload.end_date else "start_date"
            raise InvalidFieldError(changed, "would make the campaign end before it starts")
        return msgspec.structs.replace(state, start_date=start, end_date=end)
    return msgspec.structs.replace(state, status=transition.to or state.status)


def statuses_for_holds(schema_version: int) -> tuple[str, ...]:
    """Return the statuses of a campaign in which money can be held, by the rules of a version of `cost.reserved`."""
    return ("draft", "active", "paused") if schema_version == 1 else ("draft", "active")


def statuses_for_jobs(schema_version: int) -> tuple[str, ...]:
    """Return the statuses of a campaign in which jobs can be queued, by the rules of a version of `job.queued`."""
    return ("draft", *_STARTED) if schema_version == 1 else ("draft", "active", "paused")
