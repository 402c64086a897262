"""Judge content events: the campaign and job that an asset names, and the status of its review."""

from uuid import UUID

from ledger.domain import content
from ledger.domain.content import ContentState
from ledger.domain.event import Candidate, Receipt
from ledger.domain.references import require_campaign, resolve_references
from ledger.domain.working_state import Head, WorkingState


def judge_content(working_state: WorkingState, candidate: Candidate) -> Receipt:
    """Judge a content event and record it.

    Raises:
        IllegalTransition: The status does not allow it.
        UnknownReference, ReferenceMismatch: It names a campaign or job that does not exist or does not agree.
    """
    event_type, key = candidate.event_type, ("content", candidate.stream_id)
    head = working_state.heads.get(key)
    state = head.state if head else None
    assert state is None or isinstance(state, ContentState)
    status = state.status if state else None
    event_type.require_stream(status)
    campaign_id, job_id = _references(working_state, candidate, state)
    event_type.require_status(status)
    after = content.fold(state, event_type.transition, campaign_id, job_id)
    receipt = working_state.record(candidate, campaign_id, job_id)
    working_state.put(working_state.heads, key, Head(receipt.version, after))
    return receipt


def _references(
    working_state: WorkingState, candidate: Candidate, state: ContentState | None
) -> tuple[UUID | None, UUID | None]:
    """Return the campaign and the job that the asset belongs to after the event."""
    payload = candidate.payload
    if isinstance(payload, content.ContentCreated):
        return resolve_references(working_state, payload.campaign_id, payload.agent_job_id)
    assert state is not None
    if isinstance(payload, content.ContentAssigned):
        if payload.campaign_id is not None:
            require_campaign(working_state, payload.campaign_id)
        return payload.campaign_id, state.agent_job_id
    return state.campaign_id, state.agent_job_id
