"""Campaign events, and what costs move, folded into `campaigns`."""

from ledger.domain import campaign, money
from ledger.domain.codec import EventData
from ledger.domain.lifecycle import Transition
from ledger.log.read import StoredEvent
from projections.rows import CampaignRow, Movement, Rows, add_count


def fold(event: StoredEvent, payload: EventData, transition: Transition, rows: Rows[CampaignRow]) -> None:
    """Fold a campaign event."""
    if isinstance(payload, campaign.CampaignCreated):
        rows.add(_created(event, payload))
        return
    if isinstance(payload, campaign.CampaignDeleted):
        rows.delete(event.stream_id)
        return
    row = rows.change(event.stream_id, event)
    assert row is not None, "an event on a campaign that was never created"
    row.status = transition.to or row.status
    if isinstance(payload, campaign.CampaignDetailsChanged):
        row.name = payload.name if payload.name is not None else row.name
        row.description = payload.description if payload.description is not None else row.description
        row.start_date = payload.start_date or row.start_date
        row.end_date = payload.end_date or row.end_date
    elif isinstance(payload, campaign.CampaignBudgetChanged):
        row.budget = payload.budget
    elif isinstance(payload, campaign.CampaignMetricsRecorded):
        row.impressions = add_count(row.impressions, payload.impressions)
        row.clicks = add_count(row.clicks, payload.clicks)
        row.conversions = add_count(row.conversions, payload.conversions)
        row.revenue = money.add(row.revenue, payload.revenue or money.ZERO)


def move(event: StoredEvent, movement: Movement, rows: Rows[CampaignRow]) -> None:
    """Move spend and held of the campaign that a cost event counts for, if it still exists."""
    row = rows.change(event.campaign_id, event)
    if row is None:
        return
    if movement.held:
        row.held = money.add(row.held, movement.held)
    if movement.cost:
        row.spend = money.add(row.spend, movement.cost)


def rate(row: CampaignRow) -> None:
    """Note what the campaign returns, once its revenue and spend have come to rest."""
    row.roi = money.return_on_investment(row.revenue, row.spend)


def _created(event: StoredEvent, payload: campaign.CampaignCreated) -> CampaignRow:
    return CampaignRow(
        id=event.stream_id,
        created_at=event.recorded_at,
        updated_at=event.recorded_at,
        position=event.position,
        name=payload.name,
        description=payload.description,
        status="draft",
        budget=payload.budget,
        currency=payload.budget_currency,
        start_date=payload.start_date,
        end_date=payload.end_date,
    )
