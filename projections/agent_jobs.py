"""Folds job events, and amounts of cost events, into `agent_jobs`: a job's own cost, and its tree's."""

from uuid import UUID

import msgspec

from ledger.domain import job, money
from ledger.domain.codec import EventData
from ledger.domain.lifecycle import Transition
from ledger.log.read import StoredEvent
from projections.rows import NO_LABELS, AgentJobRow, AmountChange, CampaignRow, Rows, add_count, json_text, merge_labels


def fold(
    event: StoredEvent,
    payload: EventData,
    transition: Transition,
    rows: Rows[AgentJobRow],
    campaigns: Rows[CampaignRow],
) -> None:
    """Fold a job event. A job's currency is that of its campaign or parent.

    Args:
        event: the stored event.
        payload: its decoded data.
        transition: the status that its type leads to.
        rows: the jobs that the page touches.
        campaigns: the campaigns that the page touches.
    """
    if isinstance(payload, job.JobQueued):
        rows.add(_new_row(event, payload, campaigns.get(event.campaign_id), rows.get(payload.parent_job_id)))
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
    elif isinstance(payload, job.JobBudgetChanged):
        row.budget = row.budget if payload.budget is msgspec.UNSET else payload.budget
    elif isinstance(payload, job.JobRetried):
        row.started_at = row.completed_at = row.error_message = None
        row.retry_count += 1
    elif transition.to in job.ENDED:
        row.completed_at = event.occurred_at
        if isinstance(payload, job.JobCompleted):
            row.started_at = payload.started_at or row.started_at
            row.output_data = json_text(payload.output_data)
        elif isinstance(payload, job.JobFailed):
            # An erased message reads as "".
            row.error_message = payload.error_message or None


def add_amounts(event: StoredEvent, change: AmountChange, rows: Rows[AgentJobRow]) -> None:
    """Add the amounts and tokens of a cost event to its job, if it has one, and its cost to all jobs above.

    Args:
        event: the cost event.
        change: the amounts to add.
        rows: the jobs that the page touches, and all jobs above them.
    """
    row = rows.change(event.agent_job_id, event)
    if row is None:
        return
    if change.cost:
        row.cost = money.add(row.cost, change.cost)
        row.tree_cost = money.add(row.tree_cost, change.cost)
        if row.parent_job_id is not None:
            _add_to_ancestors(event, change, row.parent_job_id, rows)
    if change.held:
        row.held = money.add(row.held, change.held)
    row.tokens_used = add_count(row.tokens_used, change.tokens_used)


def _add_to_ancestors(
    event: StoredEvent, change: AmountChange, parent_job_id: UUID | None, rows: Rows[AgentJobRow]
) -> None:
    # Bounded: no event that is not valid may stop the worker.
    for _ in range(job.LEVELS_MAX):
        ancestor = rows.change(parent_job_id, event)
        if ancestor is None:
            return
        ancestor.tree_cost = money.add(ancestor.tree_cost, change.cost)
        parent_job_id = ancestor.parent_job_id


def _new_row(
    event: StoredEvent, payload: job.JobQueued, campaign: CampaignRow | None, parent: AgentJobRow | None
) -> AgentJobRow:
    row = AgentJobRow(
        id=event.stream_id,
        created_at=event.recorded_at,
        updated_at=event.recorded_at,
        position=event.position,
        agent_type=payload.agent_type,
        status="pending",
        currency=_currency(payload, campaign or parent),
        campaign_id=event.campaign_id,
        budget=payload.budget,
        input_data=json_text(payload.input_data),
        actor=event.actor,
        agent_name=payload.agent_name,
        parent_job_id=payload.parent_job_id,
        root_job_id=parent.root_job_id if parent else event.stream_id,
        labels=merge_labels(campaign.labels if campaign else NO_LABELS, payload.labels),
        trace_id=payload.trace_id,
    )
    if isinstance(payload, job.JobRecorded):
        row.status = payload.status
        row.started_at = payload.started_at
        row.completed_at = payload.completed_at or event.occurred_at
        row.output_data = json_text(payload.output_data)
        row.error_message = payload.error_message
    return row


def _currency(payload: job.JobQueued, owner: CampaignRow | AgentJobRow | None) -> str:
    return owner.currency if owner else payload.currency or money.DEFAULT_CURRENCY
