"""Cost events folded into `budget_entries`, and what they move elsewhere."""

from ledger.domain import cost, money
from ledger.domain.codec import EventData
from ledger.log.read import StoredEvent
from projections.rows import AgentJobRow, BudgetEntryRow, CampaignRow, Movement, Rows, add_count


def fold(
    event: StoredEvent,
    payload: EventData,
    rows: Rows[BudgetEntryRow],
    campaigns: Rows[CampaignRow],
    jobs: Rows[AgentJobRow],
) -> Movement | None:
    """Fold a cost event and return what it moves on its job and campaign; None for a denied hold, which is no entry."""
    if isinstance(payload, cost.CostDenied):
        return None
    if isinstance(payload, cost.CostRecorded | cost.CostReserved):
        of = campaigns.get(event.campaign_id) or jobs.get(event.agent_job_id)
        row = _opened(event, payload, payload.currency or (of.currency if of else money.DEFAULT_CURRENCY))
        rows.add(row)
        return Movement(row.cost, row.held, row.tokens_used)
    changed = rows.change(event.stream_id, event)
    assert changed is not None, "an event on an entry that was never opened"
    cost_before, held_before, tokens_before = changed.cost, changed.held, changed.tokens_used
    _change(event, payload, changed)
    return Movement(
        money.subtract(changed.cost, cost_before),
        money.subtract(changed.held, held_before),
        changed.tokens_used - tokens_before,
    )


def _change(event: StoredEvent, payload: EventData, row: BudgetEntryRow) -> None:
    if isinstance(payload, cost.CostSettled):
        row.status = "settled"
        row.cost = payload.cost
        row.held = money.ZERO
        row.tokens_used = payload.tokens_used or 0
        row.model_used = payload.model_used if payload.model_used is not None else row.model_used
        row.provider = payload.provider if payload.provider is not None else row.provider
        row.occurred_at = event.occurred_at
    elif isinstance(payload, cost.CostAdjusted):
        row.cost = money.add(row.cost, payload.amount)
        row.tokens_used = add_count(row.tokens_used, payload.tokens_used)
    elif isinstance(payload, cost.CostReleased | cost.CostExpired):
        row.status = "released" if isinstance(payload, cost.CostReleased) else "expired"
        row.held = money.ZERO


def _opened(event: StoredEvent, payload: cost.CostRecorded | cost.CostReserved, currency: str) -> BudgetEntryRow:
    row = BudgetEntryRow(
        id=event.stream_id,
        created_at=event.recorded_at,
        updated_at=event.recorded_at,
        position=event.position,
        resource_type=payload.resource_type.value,
        status="held",
        currency=currency,
        occurred_at=event.occurred_at,
        # Resolved when it was appended: named, or inherited from the job.
        campaign_id=event.campaign_id,
        agent_job_id=event.agent_job_id,
        model_used=payload.model_used,
        provider=payload.provider,
        description=payload.description,
    )
    if isinstance(payload, cost.CostRecorded):
        row.status = "settled"
        row.cost = payload.cost
        row.tokens_used = payload.tokens_used or 0
    else:
        row.held = payload.amount
        row.expires_at = payload.expires_at(event.recorded_at)
    return row
