"""Job events, and what costs move, folded into `agent_jobs`."""

from ledger.domain import job, money
from ledger.domain.codec import EventData
from ledger.domain.lifecycle import Transition
from ledger.log.read import StoredEvent
from projections.rows import AgentJobRow, CampaignRow, Movement, Rows, add_count, raw_text


def fold(
    event: StoredEvent,
    payload: EventData,
    transition: Transition,
    rows: Rows[AgentJobRow],
    campaigns: Rows[CampaignRow],
) -> None:
    """Fold a job event; a job counts in the currency of its campaign."""
    if isinstance(payload, job.JobQueued):
        of = campaigns.get(payload.campaign_id)
        rows.add(_queued(event, payload, of.currency if of else payload.currency or money.DEFAULT_CURRENCY))
        return
    if isinstance(payload, job.JobDeleted):
        rows.delete(event.stream_id)
        return
    row = rows.change(event.stream_id, event)
    assert row is not None, "an event on a job that was never queued"
    row.status = transition.to or row.status
    if isinstance(payload, job.JobStarted):
        row.started_at = event.occurred_at
    elif isinstance(payload, job.JobProgressed):
        row.progress = payload.progress if payload.progress is not None else row.progress
    elif isinstance(payload, job.JobRetried):
        row.started_at = row.completed_at = row.error_message = None
        row.retry_count += 1
    elif transition.to in job.ENDED:
        row.completed_at = event.occurred_at
        if isinstance(payload, job.JobCompleted):
            row.output_data = raw_text(payload.output_data)
        elif isinstance(payload, job.JobFailed):
            # Erased, it is "".
            row.error_message = payload.error_message or None


def move(event: StoredEvent, movement: Movement, rows: Rows[AgentJobRow]) -> None:
    """Move cost, held and tokens of the job that a cost event counts for."""
    row = rows.change(event.agent_job_id, event)
    if row is None:
        return
    if movement.cost:
        row.cost = money.add(row.cost, movement.cost)
    if movement.held:
        row.held = money.add(row.held, movement.held)
    row.tokens_used = add_count(row.tokens_used, movement.tokens_used)


def _queued(event: StoredEvent, payload: job.JobQueued, currency: str) -> AgentJobRow:
    return AgentJobRow(
        id=event.stream_id,
        created_at=event.recorded_at,
        updated_at=event.recorded_at,
        position=event.position,
        agent_type=payload.agent_type.value,
        status="pending",
        currency=currency,
        campaign_id=payload.campaign_id,
        budget=payload.budget,
        input_data=raw_text(payload.input_data),
    )
