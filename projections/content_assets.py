"""Folds content events into `content_assets`."""

from ledger.domain import content
from ledger.domain.codec import EventData
from ledger.domain.lifecycle import Transition
from ledger.log.read import StoredEvent
from projections.rows import ContentAssetRow, Rows, json_text


def fold(event: StoredEvent, payload: EventData, transition: Transition, rows: Rows[ContentAssetRow]) -> None:
    """Fold a content event.

    Args:
        event: the stored event.
        payload: its decoded data.
        transition: the status that its type leads to.
        rows: the assets that the page touches.
    """
    if isinstance(payload, content.ContentCreated):
        rows.add(_new_row(event, payload))
        return
    if isinstance(payload, content.ContentDeleted):
        rows.delete(event.stream_id)
        return
    row = rows.change(event.stream_id, event)
    assert row is not None, "an event on an asset that was never created"
    row.status = transition.to or row.status
    if isinstance(payload, content.ContentRevised):
        row.title = payload.title if payload.title is not None else row.title
        row.content = payload.content if payload.content is not None else row.content
        row.metadata = json_text(payload.metadata) or row.metadata
    elif isinstance(payload, content.ContentAssigned):
        row.campaign_id = payload.campaign_id


def _new_row(event: StoredEvent, payload: content.ContentCreated) -> ContentAssetRow:
    return ContentAssetRow(
        id=event.stream_id,
        created_at=event.recorded_at,
        updated_at=event.recorded_at,
        position=event.position,
        title=payload.title,
        content=payload.content,
        content_type=payload.content_type,
        status="draft",
        metadata=json_text(payload.metadata) or "{}",
        # The append resolved it: as sent, or inherited from the job.
        campaign_id=event.campaign_id,
        agent_job_id=event.agent_job_id,
    )
