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


def require_job(working_state: WorkingState, job_id: UUID, field: str = "agent_job_id") -> JobState:
    """Return the state of a job; raise `UnknownReference` if it does not exist or was deleted.

    Args:
        working_state: Holds the state.
        job_id: The job.
        field: The field that names the job.
    """
    head = working_state.heads.get(("job", job_id))
    if head is None or head.state.status == DELETED:
        raise UnknownReference(field, job_id)
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
            raise ReferenceMismatch(campaign_id, "job", job_campaign_id)
        return campaign_id, job_id
    return _inherited(working_state, job_campaign_id), job_id


def resolve_parent(
    working_state: WorkingState, campaign_id: UUID | None, parent_job_id: UUID | None
) -> tuple[UUID | None, JobState | None]:
    """Check the campaign and parent that a new job names; without a campaign, the parent's counts.

    Args:
        working_state: Holds the states of both.
        campaign_id: The campaign that the job names; None if none.
        parent_job_id: The parent that the job names; None if none.

    Returns:
        The campaign that the job counts for, and the state of its parent. No campaign if the parent's was deleted.

    Raises:
        UnknownReference: One of them does not exist or was deleted.
        ReferenceMismatch: The parent does not belong to the campaign.
    """
    if campaign_id is not None:
        require_campaign(working_state, campaign_id)
    if parent_job_id is None:
        return campaign_id, None
    parent = require_job(working_state, parent_job_id, "parent_job_id")
    if campaign_id is None:
        return _inherited(working_state, parent.campaign_id), parent
    if campaign_id != parent.campaign_id:
        raise ReferenceMismatch(campaign_id, "parent job", parent.campaign_id)
    return campaign_id, parent


def _inherited(working_state: WorkingState, campaign_id: UUID | None) -> UUID | None:
    """Return the campaign of a job that others inherit; None if it was deleted."""
    head = working_state.heads.get(("campaign", campaign_id)) if campaign_id is not None else None
    return None if head is None or head.state.status == DELETED else campaign_id


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


def require_takes_jobs(
    working_state: WorkingState, campaign_id: UUID | None, parent: JobState | None, schema_version: int
) -> None:
    """Check that the campaign and parent of a queued job are in a status that allows it.

    Args:
        working_state: Holds the state of the campaign.
        campaign_id: The campaign that the job counts for; None if none.
        parent: The state of its parent; None if it has none.
        schema_version: The version of the `job.queued`, whose rules apply.

    Raises:
        IllegalTransition: The status of the campaign or parent allows no new jobs.
    """
    if parent is not None:
        _require_status("parent job", parent.status, job.TAKES_HOLDS, "jobs can be queued under it")
    if campaign_id is not None:
        status = require_campaign(working_state, campaign_id).status
        _require_status("campaign", status, campaign.statuses_for_jobs(schema_version), "jobs can be queued")


def _require_status(noun: str, status: str, allowed: tuple[str, ...], what: str) -> None:
    if status not in allowed:
        detail = f"the {noun} is {status}; {what} only while it is {either(allowed)}"
        raise IllegalTransition(detail, status, allowed)
