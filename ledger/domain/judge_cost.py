"""Judge cost events against the budgets of job and campaign; release the holds of a job that ends."""

from typing import cast

import msgspec

from ledger.domain import budget_entry, cost, money
from ledger.domain.access import campaign_of_stream
from ledger.domain.accounts import (
    Scope,
    add_to_balances,
    currency_of,
    limits_of,
    require_currency,
    require_room,
    scopes_of,
)
from ledger.domain.budget_entry import Entry
from ledger.domain.codec import EventData, InvalidFieldError
from ledger.domain.errors import BudgetExceeded, IllegalTransition
from ledger.domain.event import Candidate, Receipt
from ledger.domain.event_type import EventType
from ledger.domain.holds import Hold
from ledger.domain.priced_cost import with_computed_cost
from ledger.domain.references import require_takes_holds, resolve_references
from ledger.domain.service_events import hold_release
from ledger.domain.working_state import WorkingState


def judge_cost(working_state: WorkingState, candidate: Candidate) -> Receipt:
    """Judge a cost event, move the balances of its job and campaign, and record it.

    Raises:
        BudgetExceeded: A budget does not allow the hold.
        CurrencyMismatch: Event, job and campaign do not count in one currency.
        IllegalTransition: The status of the entry, or of the job or campaign of a hold, does not allow it.
        InvalidFieldError: An adjustment would take a cost below zero, or a credit above it.
        UnknownReference, ReferenceMismatch: It names a campaign or job that does not exist or does not agree.
    """
    event_type, payload = candidate.event_type, candidate.payload
    entry = working_state.entries.get(candidate.stream_id)
    event_type.require_stream(entry.status if entry else None)
    if isinstance(payload, budget_entry.OPENING):
        return _open_entry(working_state, candidate, payload)
    assert entry is not None
    event_type.require_status(entry.status)
    if isinstance(payload, cost.CostExpired) and (not entry.expires_at or entry.expires_at > working_state.recorded_at):
        raise IllegalTransition("the hold has not expired yet", entry.status, ("held",))
    _require_priced(event_type, payload, entry)
    scopes = scopes_of(working_state, entry.campaign_id, entry.agent_job_id)
    if isinstance(payload, cost.CostSettled) and payload.usage is not None:
        candidate = with_computed_cost(working_state, candidate, currency_of(scopes, entry.currency), entry)
        payload = candidate.payload
    after = budget_entry.fold(entry, payload, working_state.recorded_at)
    if event_type.extends_hold:
        return _extend(working_state, candidate, entry, after)
    spent, held = money.subtract(after.cost, entry.cost), money.subtract(after.held, entry.held)
    over_budget = add_to_balances(working_state, scopes, spent, held)
    is_fact = over_budget and event_type.is_fact
    receipt = working_state.record(candidate, after.campaign_id, after.agent_job_id, over_budget if is_fact else None)
    working_state.replace(working_state.entries, candidate.stream_id, entry, after)
    if entry.status == "held":
        working_state.put(working_state.holds, candidate.stream_id, None)
    return receipt


def _extend(working_state: WorkingState, candidate: Candidate, entry: Entry, after: Entry) -> Receipt:
    assert after.expires_at is not None
    receipt = working_state.record(candidate, after.campaign_id, after.agent_job_id)
    working_state.replace(working_state.entries, candidate.stream_id, entry, after)
    hold = Hold(after.held, after.campaign_id, after.agent_job_id, after.expires_at)
    working_state.put(working_state.holds, candidate.stream_id, hold)
    return receipt


def _open_entry(working_state: WorkingState, candidate: Candidate, payload: budget_entry.Opening) -> Receipt:
    campaign_id, job_id = resolve_references(working_state, payload.campaign_id, payload.agent_job_id)
    scopes = scopes_of(working_state, campaign_id, job_id)
    require_currency(scopes, payload.currency)
    if isinstance(payload, cost.CostReserved):
        require_takes_holds(working_state, campaign_id, job_id, candidate.schema_version)
    if not isinstance(payload, cost.CostCredited) and payload.usage is not None:
        candidate = with_computed_cost(working_state, candidate, currency_of(scopes, payload.currency))
        payload = cast(budget_entry.Opening, candidate.payload)
    entry = budget_entry.open_entry(payload, campaign_id, job_id, working_state.recorded_at)
    if isinstance(payload, cost.CostReserved):
        _require_room(scopes, payload)
        assert entry.expires_at is not None
        working_state.put(
            working_state.holds, candidate.stream_id, Hold(entry.held, campaign_id, job_id, entry.expires_at)
        )
    over_budget = add_to_balances(working_state, scopes, entry.cost, entry.held)
    is_fact = over_budget and candidate.event_type.is_fact
    receipt = working_state.record(candidate, campaign_id, job_id, over_budget if is_fact else None)
    working_state.replace(working_state.entries, candidate.stream_id, None, entry)
    return receipt


def with_limits(working_state: WorkingState, candidate: Candidate, receipt: Receipt) -> Receipt:
    """Add to the receipt of a hold the limits that it counts for, as they are now.

    To a key restricted to campaigns, a job of another or of no campaign would show what others have spent.
    """
    if not candidate.event_type.opens_hold:
        return receipt
    entry = working_state.entries[candidate.stream_id]
    scopes = scopes_of(working_state, entry.campaign_id, entry.agent_job_id)
    if (allowed := candidate.allowed_campaign_ids) is not None:
        scopes = [scope for scope in scopes if campaign_of_stream(working_state, *scope[1])[1] in allowed]
    limits = limits_of(scopes)
    return msgspec.structs.replace(receipt, limits=limits)


def _require_room(scopes: list[Scope], payload: cost.CostReserved) -> None:
    if payload.amount is None:
        raise InvalidFieldError("amount", "is required")
    try:
        require_room(scopes, payload.amount)
    except BudgetExceeded as refusal:
        refusal.computed = (payload.amount, payload.price) if payload.price is not None else None
        raise


def _require_priced(event_type: EventType, payload: EventData, entry: Entry) -> None:
    """Refuse an adjustment of an entry without a cost, and a second price of an entry with one."""
    if isinstance(payload, cost.CostAdjusted) and entry.unpriced:
        raise IllegalTransition(
            "the entry has no cost yet; publish a price and reprice the entry first", entry.status, ()
        )
    if isinstance(payload, cost.CostPriced) and not entry.unpriced:
        raise IllegalTransition("the entry has a cost already", entry.status, event_type.transition.allowed_from)


def release_holds(working_state: WorkingState, ended: Candidate) -> None:
    """Release the open holds of the job that this event has just ended, or record that some remain to be released."""
    holds = list(working_state.holds.of_job(ended.stream_id))
    released = holds[: working_state.releases_left]
    if len(released) < len(holds) or working_state.has_unloaded_holds:
        working_state.put(working_state.pending_releases, ended.stream_id, working_state.position)
    working_state.releases_left -= len(released)
    for stream_id in released:
        judge_cost(working_state, hold_release(working_state, stream_id, ended))
