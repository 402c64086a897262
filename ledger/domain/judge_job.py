"""Judge job events: campaign and currency, status, retries, and deletion without cost entries."""

from ledger.domain import job, money
from ledger.domain.errors import IllegalTransition
from ledger.domain.event import Candidate, Receipt
from ledger.domain.job import JobState
from ledger.domain.references import require_takes_jobs
from ledger.domain.working_state import Head, WorkingState


def judge_job(working_state: WorkingState, candidate: Candidate) -> Receipt:
    """Judge a job event and record it. The holds of a job that ends are released by the caller.

    Raises:
        IllegalTransition: The status of the job or campaign does not allow it, no retry is left, or the job to delete
            has cost entries.
        UnknownReference: It names a campaign that does not exist.
    """
    event_type, payload, key = candidate.event_type, candidate.payload, ("job", candidate.stream_id)
    head = working_state.heads.get(key)
    state = head.state if head else None
    assert state is None or isinstance(state, JobState)
    event_type.require_stream(state.status if state else None)
    currency = money.DEFAULT_CURRENCY
    if isinstance(payload, job.JobQueued):
        currency = _currency(working_state, payload, candidate.schema_version)
    else:
        assert state is not None
        event_type.require_status(state.status)
        if isinstance(payload, job.JobRetried):
            job.require_retry_left(state)
        # A job has an account from its first cost entry on.
        if isinstance(payload, job.JobDeleted) and key in working_state.accounts:
            raise IllegalTransition(
                "the job cannot be deleted: it has cost entries", state.status, event_type.transition.allowed_from
            )
    after = job.fold(state, payload, event_type.transition, currency)
    receipt = working_state.record(candidate, after.campaign_id, candidate.stream_id)
    working_state.put(working_state.heads, key, Head(receipt.version, after))
    return receipt


def _currency(working_state: WorkingState, queued: job.JobQueued, schema_version: int) -> str:
    """Return the currency of the campaign, which must take jobs; without a campaign, the one named, or the default."""
    if queued.campaign_id is not None:
        return require_takes_jobs(working_state, queued.campaign_id, schema_version).currency
    return queued.currency or money.DEFAULT_CURRENCY
