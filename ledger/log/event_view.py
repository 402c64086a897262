"""`EventView`: an event as the API and the command line show it."""

from uuid import UUID

import msgspec

from ledger.domain.codec import merge, time_text
from ledger.domain.fields import JsonObject
from ledger.log.read import StoredEvent


class EventView(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event as the API shows it: data and free text are merged into one object."""

    position: int
    category: str
    stream_id: UUID
    version: int
    id: UUID
    type: str
    schema_version: int
    occurred_at: str
    recorded_at: str
    actor: str
    campaign_id: UUID | None
    agent_job_id: UUID | None
    data: JsonObject
    correlation_id: UUID | None = None
    causation_id: UUID | None = None
    erased: bool = False


def view(event: StoredEvent) -> EventView:
    """Return the view of a stored event."""
    free_text = event.text.encode() if event.text is not None else None
    return EventView(
        position=event.position,
        category=event.category,
        stream_id=event.stream_id,
        version=event.version,
        id=event.id,
        type=event.type,
        schema_version=event.schema_version,
        occurred_at=time_text(event.occurred_at),
        recorded_at=time_text(event.recorded_at),
        actor=event.actor,
        campaign_id=event.campaign_id,
        agent_job_id=event.agent_job_id,
        data=msgspec.Raw(merge(event.data.encode(), free_text)),
        correlation_id=event.correlation_id,
        causation_id=event.causation_id,
        erased=event.text_commitment is not None and event.text is None,
    )
