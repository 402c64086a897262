"""Folds campaign events, and the amounts of cost events, into `campaigns`."""

import msgspec

from ledger.domain import campaign, money
from ledger.domain.codec import EventData
from ledger.domain.lifecycle import Transition
from ledger.log.read import StoredEvent
from projections.rows import NO_LABELS, AmountChange, CampaignRow, Rows, add_count, merge_labels


def fold(event: StoredEvent, payload: EventData, transition: Transition, rows: Rows[CampaignRow]) -> None:
    """Fold a campaign event.

    Args:
        event: the stored event.
        payload: its decoded data.
        transition: the status that its type leads to.
        rows: the campaigns that the page touches.
    """
    if isinstance(payload, campaign.CampaignCreated):
        rows.add(_new_row(event, payload))
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
        row.budget = row.budget if payload.budget is msgspec.UNSET else payload.budget
    elif isinstance(payload, campaign.CampaignMetricsRecorded):
        row.impressions = add_count(row.impressions, payload.impressions)
        row.clicks = add_count(row.clicks, payload.clicks)
        row.conversions = add_count(row.conversions, payload.conversions)
        row.revenue = money.add(row.revenue, payload.revenue or money.ZERO)


def add_amounts(event: StoredEvent, change: AmountChange, rows: Rows[CampaignRow]) -> None:
    """Add the amounts of a cost event to its campaign, if that still exists.

    Args:
        event: the cost event.
        change: the amounts to add.
        rows: the campaigns that the page touches.
    """
    row = rows.change(event.campaign_id, event)
    if row is None:
        return
    if change.held:
        row.held = money.add(row.held, change.held)
    if change.cost:
        row.spend = money.add(row.spend, change.cost)


def update_roi(row: CampaignRow) -> None:
    """Compute `roi` from revenue and spend; called once for each row of a page, after its last event."""
    row.roi = money.return_on_investment(row.revenue, row.spend)


def _new_row(event: StoredEvent, payload: campaign.CampaignCreated) -> CampaignRow:
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
        labels=merge_labels(NO_LABELS, payload.labels),
    )
