"""What events name: campaigns and jobs that must exist and agree with each other."""

from uuid import UUID

from ledger.domain import campaign, job
from ledger.domain.campaign import CampaignState
from ledger.domain.errors import IllegalTransition, ReferenceMismatch, UnknownReference
from ledger.domain.job import JobState
from ledger.domain.lifecycle import DELETED, either
from ledger.domain.working_state import WorkingState


def live_campaign(working_state: WorkingState, campaign_id: UUID) -> CampaignState:
    """The state of a campaign that an event names; raises `UnknownReference`."""
    head = working_state.heads.get(("campaign", campaign_id))
    if head is None or head.state.status == DELETED:
        raise UnknownReference("campaign_id", campaign_id)
    assert isinstance(head.state, CampaignState)
    return head.state


def live_job(working_state: WorkingState, job_id: UUID) -> JobState:
    """The state of a job that an event names; raises `UnknownReference`."""
    head = working_state.heads.get(("job", job_id))
    if head is None or head.state.status == DELETED:
        raise UnknownReference("agent_job_id", job_id)
    assert isinstance(head.state, JobState)
    return head.state


def resolve_references(
    working_state: WorkingState, campaign_id: UUID | None, job_id: UUID | None
) -> tuple[UUID | None, UUID | None]:
    """Check what an event names, and let it inherit its job's campaign (none where that was deleted)."""
    if campaign_id is not None:
        live_campaign(working_state, campaign_id)
    if job_id is None:
        return campaign_id, None
    of_job = live_job(working_state, job_id).campaign_id
    if campaign_id is not None:
        if of_job not in (None, campaign_id):
            raise ReferenceMismatch(campaign_id, of_job)
        return campaign_id, job_id
    inherited = working_state.heads.get(("campaign", of_job)) if of_job else None
    if inherited is None or inherited.state.status == DELETED:
        return None, job_id
    return of_job, job_id


def require_takes_holds(working_state: WorkingState, campaign_id: UUID | None, job_id: UUID | None) -> None:
    if job_id is not None:
        status = live_job(working_state, job_id).status
        if status not in job.TAKES_HOLDS:
            raise IllegalTransition(
                f"the job is {status}: a hold needs it {either(job.TAKES_HOLDS)}", status, job.TAKES_HOLDS
            )
    if campaign_id is not None:
        status = live_campaign(working_state, campaign_id).status
        if status not in campaign.TAKES_HOLDS:
            raise IllegalTransition(
                f"the campaign is {status}: a hold needs it {either(campaign.TAKES_HOLDS)}",
                status,
                campaign.TAKES_HOLDS,
            )
