"""Judge job events: campaign, parent, currency, status, budget, retries, deletion of unused jobs."""

from uuid import UUID

import msgspec

from ledger.domain import job, money
from ledger.domain.codec import InvalidFieldError
from ledger.domain.errors import CurrencyMismatch, IllegalTransition
from ledger.domain.event import Candidate, Receipt
from ledger.domain.job import JobState
from ledger.domain.references import require_campaign, require_takes_jobs, resolve_parent
from ledger.domain.working_state import Head, WorkingState


def judge_job(working_state: WorkingState, candidate: Candidate) -> Receipt:
    """Judge a job event and record it. The holds of a job that ends are released by the caller.

    Raises:
        IllegalTransition: The status of the job, its campaign or its parent does not allow it, no retry is left, or the
            job to delete has cost entries or children.
        InvalidFieldError: The tree would have too many levels, or a failed job has no error message.
        UnknownReference, ReferenceMismatch: It names a campaign or parent that does not exist or does not agree.
        CurrencyMismatch: It names another currency than that of its parent.
    """
    event_type, payload, key = candidate.event_type, candidate.payload, ("job", candidate.stream_id)
    head = working_state.heads.get(key)
    state = head.state if head else None
    assert state is None or isinstance(state, JobState)
    event_type.require_stream(state.status if state else None)
    if isinstance(payload, job.JobQueued):
        after = _open(working_state, candidate, payload)
        _count_child(working_state, after, 1)
    else:
        assert state is not None
        event_type.require_status(state.status)
        after = _change(working_state, candidate, state)
    receipt = working_state.record(candidate, after.campaign_id, candidate.stream_id)
    working_state.put(working_state.heads, key, Head(receipt.version, after))
    return receipt


def _open(working_state: WorkingState, candidate: Candidate, payload: job.JobQueued) -> JobState:
    """Return the state of a new job, if its campaign and its parent take it."""
    if isinstance(payload, job.JobRecorded):
        _require_error_message(candidate, payload)
    campaign_id, parent = resolve_parent(working_state, payload.campaign_id, payload.parent_job_id)
    ancestors: tuple[UUID, ...] = ()
    if parent is not None:
        assert payload.parent_job_id is not None
        ancestors = (*parent.ancestors, payload.parent_job_id)
        if len(ancestors) > job.LEVELS_MAX:
            detail = f"is {job.LEVELS_MAX} levels below the root of its tree already, which is the most"
            raise InvalidFieldError("parent_job_id", detail)
    currency = _currency(working_state, payload, campaign_id, parent)
    if not isinstance(payload, job.JobRecorded):
        require_takes_jobs(working_state, campaign_id, parent, candidate.schema_version)
    return job.open_state(payload, campaign_id, currency, ancestors)


def _require_error_message(candidate: Candidate, payload: job.JobRecorded) -> None:
    """Refuse a failed job without a message in a recorded log; a request with one does not come here."""
    is_erased = candidate.text is None and candidate.text_commitment is not None
    if payload.lacks_error_message and not is_erased:
        raise InvalidFieldError("error_message", job.ERROR_MESSAGE_REQUIRED)


def _currency(
    working_state: WorkingState, payload: job.JobQueued, campaign_id: UUID | None, parent: JobState | None
) -> str:
    """Return the currency of the parent or campaign; without either, the one named, or the default."""
    if parent is not None:
        expected = parent.currency
    elif campaign_id is not None:
        expected = require_campaign(working_state, campaign_id).currency
    else:
        expected = payload.currency or money.DEFAULT_CURRENCY
    if payload.currency not in (None, expected):
        raise CurrencyMismatch(payload.currency, expected)
    return expected


def _change(working_state: WorkingState, candidate: Candidate, state: JobState) -> JobState:
    """Return the state of a job after a later event that its status allows."""
    payload, key = candidate.payload, ("job", candidate.stream_id)
    after = job.fold(state, payload, candidate.event_type.transition)
    # A job has an account from the first cost entry on, of its own or of a job below it.
    account = working_state.accounts.get(key)
    if isinstance(payload, job.JobRetried):
        job.require_retry_left(state)
    elif isinstance(payload, job.JobDeleted):
        _require_unused(candidate, state, has_entries=account is not None)
        _count_child(working_state, state, -1)
    elif isinstance(payload, job.JobBudgetChanged) and account is not None:
        working_state.put(working_state.accounts, key, msgspec.structs.replace(account, limit=after.budget))
    return after


def _require_unused(candidate: Candidate, state: JobState, *, has_entries: bool) -> None:
    if state.children:
        reason = f"{state.children:,} of its child jobs are not deleted"
    elif has_entries:
        reason = "it has cost entries"
    else:
        return
    allowed = candidate.event_type.transition.allowed_from
    raise IllegalTransition(f"the job cannot be deleted: {reason}", state.status, allowed)


def _count_child(working_state: WorkingState, child: JobState, change: int) -> None:
    """Add to the number of children of a job's parent, if it has one."""
    if not child.ancestors:
        return
    key = ("job", child.ancestors[-1])
    head = working_state.heads[key]
    assert isinstance(head.state, JobState)
    parent = msgspec.structs.replace(head.state, children=head.state.children + change)
    working_state.put(working_state.heads, key, Head(head.version, parent))
