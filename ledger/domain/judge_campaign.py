"""Judge campaign events: status, dates, and no deletion while money is spent or held."""

import msgspec

from ledger.domain import campaign, money
from ledger.domain.campaign import CampaignState
from ledger.domain.errors import IllegalTransition
from ledger.domain.event import Candidate, Receipt
from ledger.domain.working_state import Account, Head, WorkingState


def judge_campaign(working_state: WorkingState, candidate: Candidate) -> Receipt:
    """Judge a campaign event and record it.

    Raises:
        IllegalTransition: The status does not allow it, or the campaign to delete has spent or held money.
        InvalidFieldError: The campaign would end before it starts.
    """
    event_type, payload, key = candidate.event_type, candidate.payload, ("campaign", candidate.stream_id)
    head = working_state.heads.get(key)
    state = head.state if head else None
    assert state is None or isinstance(state, CampaignState)
    status = state.status if state else None
    event_type.require_stream(status)
    event_type.require_status(status)
    account = working_state.accounts.get(key)
    if isinstance(payload, campaign.CampaignDeleted):
        _require_no_money(candidate, account, status)
    after = campaign.fold(state, payload, event_type.transition)
    receipt = working_state.record(candidate, candidate.stream_id, None)
    working_state.put(working_state.heads, key, Head(receipt.version, after))
    if isinstance(payload, campaign.CampaignCreated):
        working_state.put(working_state.accounts, key, Account(payload.budget_currency, payload.budget))
    elif isinstance(payload, campaign.CampaignBudgetChanged) and payload.budget is not msgspec.UNSET:
        assert account is not None
        working_state.put(working_state.accounts, key, msgspec.structs.replace(account, limit=payload.budget))
    return receipt


def _require_no_money(candidate: Candidate, account: Account | None, status: str | None) -> None:
    if account and (account.spent or account.held):
        raise IllegalTransition(
            f"the campaign cannot be deleted: {money.plain(account.spent)} {account.currency} is spent on it and "
            f"{money.plain(account.held)} is held",
            status,
            candidate.event_type.transition.allowed_from,
        )
