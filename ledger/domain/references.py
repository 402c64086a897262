"""References of events: the campaign and job that an event names must exist and belong together."""

from uuid import UUID

from ledger.domain import campaign, job
from ledger.domain.campaign import CampaignState
from ledger.domain.errors import IllegalTransition, ReferenceMismatch, UnknownReference
from ledger.domain.job import JobState
from ledger.domain.lifecycle import DELETED, either
from ledger.domain.working_state import WorkingState


def require_campaign(working_state: WorkingState, campaign_id: UUID) -> CampaignState:
    """Return the state of a campaign; raise `UnknownReference` if it does not exist or was deleted."""
    head = working_state.heads.get(("campaign", campaign_id))
    if head is None or head.state.status == DELETED:
        raise UnknownReference("campaign_id", campaign_id)
    assert isinstance(head.state, CampaignState)
    return head.state


def require_job(working_state: WorkingState, job_id: UUID) -> JobState:
    """Return the state of a job; raise `UnknownReference` if it does not exist or was deleted."""
    head = working_state.heads.get(("job", job_id))
    if head is None or head.state.status == DELETED:
        raise UnknownReference("agent_job_id", job_id)
    assert isinstance(head.state, JobState)
    return head.state


def resolve_references(
    working_state: WorkingState, campaign_id: UUID | None, job_id: UUID | None
) -> tuple[UUID | None, UUID | None]:
    """Check the campaign and job that an event names; without a campaign, the job's campaign counts.

    Args:
        working_state: Holds the states of both.
        campaign_id: The campaign that the event names; None if none.
        job_id: The job that the event names; None if none.

    Returns:
        The campaign and the job that the event counts for. No campaign if that of the job was deleted.

    Raises:
        UnknownReference: One of them does not exist or was deleted.
        ReferenceMismatch: The job belongs to another campaign.
    """
    if campaign_id is not None:
        require_campaign(working_state, campaign_id)
    if job_id is None:
        return campaign_id, None
    job_campaign_id = require_job(working_state, job_id).campaign_id
    if campaign_id is not None:
        if job_campaign_id not in (None, campaign_id):
            raise ReferenceMismatch(campaign_id, job_campaign_id)
        return campaign_id, job_id
    inherited = working_state.heads.get(("campaign", job_campaign_id)) if job_campaign_id else None
    if inherited is None or inherited.state.status == DELETED:
        return None, job_id
    return job_campaign_id, job_id


def require_takes_holds(
    working_state: WorkingState, campaign_id: UUID | None, job_id: UUID | None, schema_version: int
) -> None:
    """Check that the campaign and job of a hold are in a status that allows holds.

    Args:
        working_state: Holds the states of both.
        campaign_id: The campaign that the hold counts for; None if none.
        job_id: The job that the hold counts for; None if none.
        schema_version: The version of the `cost.reserved`, whose rules apply.

    Raises:
        IllegalTransition: The status of the campaign or job allows no holds.
    """
    if job_id is not None:
        _require_status("job", require_job(working_state, job_id).status, job.TAKES_HOLDS, "money can be held")
    if campaign_id is not None:
        status = require_campaign(working_state, campaign_id).status
        _require_status("campaign", status, campaign.statuses_for_holds(schema_version), "money can be held")


def require_takes_jobs(working_state: WorkingState, campaign_id: UUID, schema_version: int) -> CampaignState:
    """Return the state of a campaign in which a job is queued; `schema_version` is that of the `job.queued`.

    Raises:
        UnknownReference: The campaign does not exist.
        IllegalTransition: Its status allows no new jobs.
    """
    state = require_campaign(working_state, campaign_id)
    _require_status("campaign", state.status, campaign.statuses_for_jobs(schema_version), "jobs can be queued")
    return state


def _require_status(noun: str, status: str, allowed: tuple[str, ...], what: str) -> None:
    if status not in allowed:
        detail = f"the {noun} is {status}; {what} only while it is {either(allowed)}"
        raise IllegalTransition(detail, status, allowed)
