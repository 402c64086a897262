"""Folds cost events into `budget_entries`, and computes by how much they change a job and a campaign."""

from ledger.domain import cost, money
from ledger.domain.budget_entry import Opening
from ledger.domain.codec import EventData
from ledger.log.read import StoredEvent
from projections.rows import (
    NO_LABELS,
    AgentJobRow,
    AmountChange,
    BudgetEntryRow,
    CampaignRow,
    Rows,
    add_count,
    merge_labels,
    parse_labels,
)


def fold(
    event: StoredEvent,
    payload: EventData,
    rows: Rows[BudgetEntryRow],
    campaigns: Rows[CampaignRow],
    jobs: Rows[AgentJobRow],
) -> AmountChange | None:
    """Fold a cost event.

    Args:
        event: the stored event.
        payload: its decoded data.
        rows: the entries that the page touches.
        campaigns: the campaigns that the page touches.
        jobs: the jobs that the page touches.

    Returns:
        the amounts to add to its job and campaign; None for a denied hold, which has no row.
    """
    if isinstance(payload, cost.CostDenied):
        return None
    if isinstance(payload, Opening):
        parents = campaigns.get(event.campaign_id), jobs.get(event.agent_job_id)
        new = _new_row(event, payload, *parents)
        rows.add(new)
        return AmountChange(new.cost, new.held, new.tokens_used)
    row = rows.change(event.stream_id, event)
    assert row is not None, "an event on an entry that was never opened"
    cost_before, held_before, tokens_before = row.cost, row.held, row.tokens_used
    _change(event, payload, row)
    return AmountChange(
        money.subtract(row.cost, cost_before),
        money.subtract(row.held, held_before),
        row.tokens_used - tokens_before,
    )


def _change(event: StoredEvent, payload: EventData, row: BudgetEntryRow) -> None:
    if isinstance(payload, cost.CostSettled):
        row.status = "settled"
        row.report_cost(payload.cost, payload.price)
        row.held = money.ZERO
        row.tokens_used = payload.tokens
        row.model_used = payload.model_used if payload.model_used is not None else row.model_used
        row.provider = payload.provider if payload.provider is not None else row.provider
        row.service_tier = payload.service_tier or row.service_tier
        row.response_id = payload.response_id or row.response_id
        row.labels = merge_labels(row.labels, payload.labels)
        row.report_usage(payload.usage)
        row.occurred_at = event.occurred_at
    elif isinstance(payload, cost.CostAdjusted):
        row.cost = money.add(row.cost, payload.amount)
        row.adjusted = money.add(row.adjusted, payload.amount)
        row.tokens_used = add_count(row.tokens_used, payload.tokens_used)
        row.price_position = payload.price or row.price_position
    elif isinstance(payload, cost.CostPriced):
        row.report_cost(payload.cost, payload.price)
    elif isinstance(payload, cost.CostExtended):
        row.expires_at = payload.expires_at(event.recorded_at)
    elif isinstance(payload, cost.CostReleased | cost.CostExpired):
        row.status = "released" if isinstance(payload, cost.CostReleased) else "expired"
        row.held = money.ZERO


def _new_row(
    event: StoredEvent,
    payload: Opening,
    campaign: CampaignRow | None,
    job: AgentJobRow | None,
) -> BudgetEntryRow:
    parent = campaign or job
    row = BudgetEntryRow(
        id=event.stream_id,
        created_at=event.recorded_at,
        updated_at=event.recorded_at,
        position=event.position,
        resource_type=payload.resource_type,
        status="held",
        currency=payload.currency or (parent.currency if parent else money.DEFAULT_CURRENCY),
        occurred_at=event.occurred_at,
        # The append resolved it: as sent, or inherited from the job.
        campaign_id=event.campaign_id,
        agent_job_id=event.agent_job_id,
        model_used=payload.model_used,
        provider=payload.provider,
        description=payload.description,
        actor=event.actor,
        service_tier=payload.service_tier,
        response_id=payload.response_id,
        labels=merge_labels(_inherited_labels(campaign, job), payload.labels),
        trace_id=payload.trace_id,
    )
    if isinstance(payload, cost.CostRecorded):
        row.report_usage(payload.usage)
        row.status = "settled"
        row.report_cost(payload.cost, payload.price)
        row.tokens_used = payload.tokens
    elif isinstance(payload, cost.CostCredited):
        row.status = "settled"
        row.cost = money.negated(payload.amount)
    else:
        row.held = payload.amount or money.ZERO
        row.price_position = payload.price
        row.expires_at = payload.expires_at(event.recorded_at)
    return row


def _inherited_labels(campaign: CampaignRow | None, job: AgentJobRow | None) -> str:
    """Return the labels of the campaign and of the job; a job has those of its campaign already."""
    if job is None:
        return campaign.labels if campaign else NO_LABELS
    if campaign is None or job.campaign_id == campaign.id:
        return job.labels
    return merge_labels(campaign.labels, parse_labels(job.labels))
