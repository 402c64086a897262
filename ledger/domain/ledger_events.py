"""The ledger's own events: what was done to the record itself, by whom and why.

Each is a stream of its own, but for erasures: those of a stream are the ledger's stream of the same id.
"""

from typing import Annotated
from uuid import UUID

import msgspec

from ledger.domain.codec import FREE_TEXT, EventData, Label
from ledger.domain.event_type import EventType
from ledger.domain.lifecycle import Transition

Why = Annotated[str, msgspec.Meta(min_length=1, max_length=500, extra=FREE_TEXT)]
ErrorText = Annotated[str, msgspec.Meta(max_length=2000, extra=FREE_TEXT)]


class ProjectionSkipped(EventData, frozen=True, kw_only=True):
    """An operator let the read models pass an event that they cannot fold; `by` is who, `position` which event."""

    projection: Label
    position: Annotated[int, msgspec.Meta(ge=1)]
    event_type: Label
    by: Label
    error: ErrorText
    reason: Why


class RollbackAccepted(EventData, frozen=True, kw_only=True):
    """An operator gave up the log that was signed: what the sealer found, and the origin given up."""

    origin: Annotated[str, msgspec.Meta(max_length=255)]
    size: Annotated[int, msgspec.Meta(ge=0)]
    by: Label
    refusal: ErrorText
    reason: Why


PAYLOAD_ERASED = "ledger.payload_erased"


class PayloadErased(EventData, frozen=True, kw_only=True):
    """The free text of an event was erased; `by` is who, `position` and the rest which event.

    `size` is the erased event's own, so that it can still be checked without its text.
    """

    position: Annotated[int, msgspec.Meta(ge=1)]
    category: Label
    stream_id: UUID
    event_type: Label
    size: Annotated[int, msgspec.Meta(ge=0)]
    by: Label
    reason: Why


EVENTS = (
    EventType("ledger.projection_skipped", ProjectionSkipped, Transition((), "recorded"), by_service=True),
    EventType("ledger.rollback_accepted", RollbackAccepted, Transition((), "recorded"), by_service=True),
    EventType(PAYLOAD_ERASED, PayloadErased, Transition((), "recorded"), by_service=True),
)
