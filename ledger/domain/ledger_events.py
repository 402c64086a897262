"""`ledger.*` event types: skips, erasures, accepted rollbacks, API keys; by whom and why.

Each event has a separate stream, with two exceptions: all erasures in one stream share a `ledger` stream with its id,
and the events of an API key share a stream.
"""

from typing import Annotated
from uuid import UUID

import msgspec

from ledger.domain.codec import EventData
from ledger.domain.event_type import EventType
from ledger.domain.fields import FREE_TEXT, Instant
from ledger.domain.lifecycle import Transition

Why = Annotated[str, msgspec.Meta(min_length=1, max_length=500, extra=FREE_TEXT)]
ShortName = Annotated[str, msgspec.Meta(max_length=100)]
ErrorText = Annotated[str, msgspec.Meta(max_length=2000, extra=FREE_TEXT)]


class ProjectionSkipped(EventData, frozen=True, kw_only=True):
    """An operator let the read models skip the event at `position`, which they cannot fold."""

    projection: ShortName
    position: Annotated[int, msgspec.Meta(ge=1)]
    event_type: ShortName
    by: ShortName
    error: ErrorText
    reason: Why


class RollbackAccepted(EventData, frozen=True, kw_only=True):
    """An operator accepted that signed events were lost; sealing starts again under a new origin.

    `origin` and `size` are those of the abandoned log, `refusal` is what the sealer reported.
    """

    origin: Annotated[str, msgspec.Meta(max_length=255)]
    size: Annotated[int, msgspec.Meta(ge=0)]
    by: ShortName
    refusal: ErrorText
    reason: Why


PAYLOAD_ERASED = "ledger.payload_erased"


class PayloadErased(EventData, frozen=True, kw_only=True):
    """The free text of the event at `position` was erased.

    `size` is that of the event before the erasure, so that it can still be checked without the text.
    """

    position: Annotated[int, msgspec.Meta(ge=1)]
    category: ShortName
    stream_id: UUID
    event_type: ShortName
    size: Annotated[int, msgspec.Meta(ge=0)]
    by: ShortName
    reason: Why


class KeyCreated(EventData, frozen=True, kw_only=True):
    """An API key was created. `campaign_ids`: the campaigns that it is restricted to, if it is."""

    key_id: ShortName
    name: ShortName
    role: ShortName
    campaign_ids: list[UUID] | None = None
    expires_at: Instant | None = None


class KeyRevoked(EventData, frozen=True, kw_only=True):
    """An API key was revoked."""

    key_id: ShortName
    name: ShortName


EVENTS = (
    EventType("ledger.projection_skipped", ProjectionSkipped, Transition((), "recorded"), by_service=True),
    EventType("ledger.rollback_accepted", RollbackAccepted, Transition((), "recorded"), by_service=True),
    EventType(PAYLOAD_ERASED, PayloadErased, Transition((), "recorded"), by_service=True),
    EventType("ledger.key_created", KeyCreated, Transition((), "recorded"), by_service=True),
    EventType("ledger.key_revoked", KeyRevoked, Transition((), "recorded"), by_service=True),
)
