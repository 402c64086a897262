"""The verdict on each event: a receipt, or a refusal that says why.

Order of judgement: (shape, before this) identity, version, stream state, references, lifecycle, money. Later events
of a request see the earlier ones; a refused request leaves no trace but, for money, a `cost.denied`.
"""

from uuid import UUID, uuid5

import msgspec

from ledger.domain import campaign, content, cost, job, money
from ledger.domain.access import require_references_within, require_stream_within
from ledger.domain.accounts import move, require_currency, require_room, scopes_of
from ledger.domain.campaign import CampaignState
from ledger.domain.catalogue import type_of
from ledger.domain.codec import EventData, InvalidFieldError, dump
from ledger.domain.content import ContentState
from ledger.domain.errors import (
    BudgetExceeded,
    EventIdConflict,
    IllegalTransition,
    InvalidEvent,
    Refused,
    VersionConflict,
)
from ledger.domain.event import Candidate, Receipt, Request
from ledger.domain.job import JobState
from ledger.domain.judge_ledger import judge_ledger, require_text_to_erase
from ledger.domain.references import live_campaign, require_takes_holds, resolve_references
from ledger.domain.working_state import Account, Denial, Head, Hold, WorkingState

SERVICE = "ledger"
"""The actor of events that the service itself writes."""


def judge(working_state: WorkingState, request: Request) -> list[Receipt | Refused]:
    """Judge one request and put its changes into the working_state.

    Returns:
        one receipt or refusal a candidate where each is judged by itself; otherwise the receipts of all, or a list
        of the one refusal that all failed by (its `index` says which event it was).
    """
    if request.independent:
        return [_judge_alone(working_state, candidate, index) for index, candidate in enumerate(request.candidates)]
    if len(request.candidates) == 1:
        return [_judge_alone(working_state, request.candidates[0], 0)]
    mark = working_state.mark()
    receipts: list[Receipt | Refused] = []
    for index, candidate in enumerate(request.candidates):
        verdict = _verdict(working_state, candidate, index)
        if isinstance(verdict, Refused):
            working_state.undo(mark)
            return [verdict]
        receipts.append(verdict)
    return receipts


def _judge_alone(working_state: WorkingState, candidate: Candidate, index: int) -> Receipt | Refused:
    mark = working_state.mark()
    verdict = _verdict(working_state, candidate, index)
    if isinstance(verdict, Refused):
        working_state.undo(mark)
        if isinstance(verdict, BudgetExceeded):
            denial = _denial(working_state, candidate, verdict)
            working_state.denials[denial.candidate.id] = denial
    return verdict


def _verdict(working_state: WorkingState, candidate: Candidate, index: int) -> Receipt | Refused:
    try:
        return _judge_event(working_state, candidate)
    except InvalidFieldError as error:
        refusal: Refused = InvalidEvent([{"index": index, "path": f"$.data.{error.field}", "message": str(error)}])
    except Refused as error:
        refusal = error
    refusal.index = index
    return refusal


def _judge_event(working_state: WorkingState, candidate: Candidate) -> Receipt:
    category, stream_id, _ = candidate.identity
    if candidate.allowed_campaign_ids is not None:
        require_stream_within(working_state, candidate)
    known = working_state.identities.get(candidate.identity)
    if known is not None:
        if known.is_same(candidate):
            return msgspec.structs.replace(known.receipt, duplicate=True)
        raise EventIdConflict(*candidate.identity, known.receipt.position)
    version = working_state.version(category, stream_id)
    if candidate.expected_version not in (None, version):
        assert candidate.expected_version is not None
        raise VersionConflict(category, stream_id, candidate.expected_version, version)
    if candidate.allowed_campaign_ids is not None:
        require_references_within(working_state, candidate)
    require_text_to_erase(working_state, candidate)
    receipt = apply(working_state, candidate)
    if candidate.event_type.ends_job:
        _release_holds(working_state, candidate)
    return receipt


def apply(working_state: WorkingState, candidate: Candidate) -> Receipt:
    """Judge what comes after identity and version, and put what the event changes into the working_state.

    Raises:
        Refused, InvalidFieldError: the event is not possible.
    """
    return _JUDGES[candidate.event_type.category](working_state, candidate)


def _judge_campaign(working_state: WorkingState, candidate: Candidate) -> Receipt:
    event_type, payload, campaign_id = candidate.event_type, candidate.payload, candidate.stream_id
    head = working_state.heads.get(("campaign", campaign_id))
    state = head.state if head else None
    assert state is None or isinstance(state, CampaignState)
    _require_transition(candidate, state.status if state else None)
    account = working_state.accounts.get(("campaign", campaign_id))
    if isinstance(payload, campaign.CampaignDeleted) and account and (account.spent or account.held):
        raise IllegalTransition(
            f"the campaign cannot be deleted: {money.plain(account.spent)} {account.currency} was spent and "
            f"{money.plain(account.held)} is held on it",
            state.status if state else None,
            event_type.transition.allowed_from,
        )
    after = campaign.fold(state, payload, event_type.transition)
    receipt = working_state.record(candidate, campaign_id, None)
    working_state.put(working_state.heads, ("campaign", campaign_id), Head(receipt.version, after))
    if isinstance(payload, campaign.CampaignCreated):
        working_state.put(working_state.accounts, ("campaign", campaign_id), Account(payload.counts_in, payload.budget))
    elif isinstance(payload, campaign.CampaignBudgetChanged):
        assert account is not None
        changed = msgspec.structs.replace(account, limit=payload.budget)
        working_state.put(working_state.accounts, ("campaign", campaign_id), changed)
    return receipt


def _judge_content(working_state: WorkingState, candidate: Candidate) -> Receipt:
    event_type, payload = candidate.event_type, candidate.payload
    head = working_state.heads.get(("content", candidate.stream_id))
    state = head.state if head else None
    assert state is None or isinstance(state, ContentState)
    status = state.status if state else None
    event_type.transition.require_stream(event_type.name, status)
    if isinstance(payload, content.ContentCreated):
        campaign_id, job_id = resolve_references(working_state, payload.campaign_id, payload.agent_job_id)
    else:
        assert state is not None
        campaign_id, job_id = state.campaign_id, state.agent_job_id
        if isinstance(payload, content.ContentAssigned):
            campaign_id = payload.campaign_id
            if campaign_id is not None:
                live_campaign(working_state, campaign_id)
    event_type.transition.require_status(event_type.name, status)
    after = content.fold(state, payload, event_type.transition, campaign_id, job_id)
    receipt = working_state.record(candidate, campaign_id, job_id)
    working_state.put(working_state.heads, ("content", candidate.stream_id), Head(receipt.version, after))
    return receipt


def _judge_job(working_state: WorkingState, candidate: Candidate) -> Receipt:
    event_type, payload, job_id = candidate.event_type, candidate.payload, candidate.stream_id
    head = working_state.heads.get(("job", job_id))
    state = head.state if head else None
    assert state is None or isinstance(state, JobState)
    event_type.transition.require_stream(event_type.name, state.status if state else None)
    currency = money.DEFAULT_CURRENCY
    if isinstance(payload, job.JobQueued):
        currency = payload.currency or currency
        if payload.campaign_id is not None:
            currency = live_campaign(working_state, payload.campaign_id).currency
    else:
        assert state is not None
        event_type.transition.require_status(event_type.name, state.status)
        if isinstance(payload, job.JobRetried):
            job.require_retry_left(state)
        if isinstance(payload, job.JobDeleted) and ("job", job_id) in working_state.accounts:
            raise IllegalTransition(
                "the job cannot be deleted: it has cost entries",
                state.status,
                event_type.transition.allowed_from,
            )
    after = job.fold(state, payload, event_type.transition, currency)
    receipt = working_state.record(candidate, after.campaign_id, job_id)
    working_state.put(working_state.heads, ("job", job_id), Head(receipt.version, after))
    return receipt


def _judge_cost(working_state: WorkingState, candidate: Candidate) -> Receipt:
    event_type, payload = candidate.event_type, candidate.payload
    entry = working_state.entries.get(candidate.stream_id)
    event_type.transition.require_stream(event_type.name, entry.status if entry else None)
    if isinstance(payload, cost.CostRecorded | cost.CostReserved):
        return _open_entry(working_state, candidate, payload)
    assert entry is not None
    event_type.transition.require_status(event_type.name, entry.status)
    if isinstance(payload, cost.CostExpired) and (not entry.expires_at or entry.expires_at > working_state.recorded_at):
        raise IllegalTransition("the hold has not expired yet", entry.status, ("held",))
    after = cost.fold(entry, payload)
    spent, held = money.subtract(after.cost, entry.cost), money.subtract(after.held, entry.held)
    over = move(working_state, scopes_of(working_state, after.campaign_id, after.agent_job_id), spent, held)
    is_said = over and isinstance(payload, cost.CostSettled)
    receipt = working_state.record(candidate, after.campaign_id, after.agent_job_id, over if is_said else None)
    working_state.put(working_state.entries, candidate.stream_id, after)
    if entry.held:
        working_state.put(working_state.holds, candidate.stream_id, None)
    return receipt


def _open_entry(
    working_state: WorkingState, candidate: Candidate, payload: cost.CostRecorded | cost.CostReserved
) -> Receipt:
    campaign_id, job_id = resolve_references(working_state, payload.campaign_id, payload.agent_job_id)
    scopes = scopes_of(working_state, campaign_id, job_id)
    require_currency(scopes, payload.currency)
    entry = cost.opened(payload, campaign_id, job_id, working_state.recorded_at)
    if isinstance(payload, cost.CostReserved):
        require_takes_holds(working_state, campaign_id, job_id)
        require_room(scopes, payload.amount)
        assert entry.expires_at is not None
        working_state.put(
            working_state.holds, candidate.stream_id, Hold(payload.amount, campaign_id, job_id, entry.expires_at)
        )
    over = move(working_state, scopes, entry.cost, entry.held)
    is_said = over and isinstance(payload, cost.CostRecorded)
    receipt = working_state.record(candidate, campaign_id, job_id, over if is_said else None)
    working_state.put(working_state.entries, candidate.stream_id, entry)
    return receipt


def _require_transition(candidate: Candidate, status: str | None) -> None:
    event_type = candidate.event_type
    event_type.transition.require_stream(event_type.name, status)
    event_type.transition.require_status(event_type.name, status)


def _release_holds(working_state: WorkingState, ended: Candidate) -> None:
    """Release the open holds of a job that has just ended."""
    holds = [stream for stream, hold in working_state.holds.items() if hold.agent_job_id == ended.stream_id]
    for stream_id in holds:
        # Nobody can foresee this id and take it beforehand: it is made from the moment under the lock.
        event_id = uuid5(stream_id, f"released at {working_state.position + 1} {working_state.recorded_at.isoformat()}")
        _judge_cost(working_state, _by_service(stream_id, event_id, cost.CostReleased(), ended))


def _denial(working_state: WorkingState, candidate: Candidate, refusal: BudgetExceeded) -> Denial:
    """The `cost.denied` of a refused hold; the same while nothing has changed, so that repeating adds nothing."""
    asked = candidate.payload
    assert isinstance(asked, cost.CostReserved)
    balances = "|".join(
        f"{scope['scope']}|{scope['limit']}|{scope['spent']}|{scope['held']}" for scope in refusal.scopes
    )
    stream_id = uuid5(candidate.stream_id, f"{candidate.id}|{balances}")
    named = {name: getattr(asked, name) for name in asked.__struct_fields__ if name != "currency"}
    payload = cost.CostDenied(
        reserve_stream_id=candidate.stream_id,
        reserve_id=candidate.id,
        currency=refusal.currency,
        scopes=refusal.scopes,
        **named,
    )
    denial = _by_service(stream_id, stream_id, payload, candidate)
    # The description is the reserve's own text, byte for byte: its salt and commitment hold for it.
    denial = msgspec.structs.replace(
        denial,
        text=candidate.text,
        text_salt=candidate.text_salt,
        text_commitment=candidate.text_commitment,
        occurred_at=candidate.occurred_at,
    )
    return Denial(denial, *resolve_references(working_state, asked.campaign_id, asked.agent_job_id))


def _by_service(stream_id: UUID, event_id: UUID, payload: EventData, cause: Candidate | None) -> Candidate:
    data, _ = dump(payload)
    return Candidate(
        event_type=type_of(type(payload)),
        stream_id=stream_id,
        id=event_id,
        payload=payload,
        data=data.decode(),
        actor=SERVICE,
        correlation_id=cause.correlation_id if cause else None,
        causation_id=cause.id if cause else None,
    )


def expiry(entry_id: UUID, event_id: UUID) -> Candidate:
    """The `cost.expired` of a hold. Its id must not be foreseeable: somebody could take it beforehand."""
    return _by_service(entry_id, event_id, cost.CostExpired(), None)


_JUDGES = {
    "campaign": _judge_campaign,
    "content": _judge_content,
    "job": _judge_job,
    "cost": _judge_cost,
    "ledger": judge_ledger,
}
