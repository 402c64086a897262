"""Content assets: `content.*` event types with their data, statuses, and the decision state."""

from enum import Enum
from typing import Annotated
from uuid import UUID

import msgspec

from ledger.domain.codec import EventData
from ledger.domain.event_type import EventType
from ledger.domain.fields import FREE_TEXT, TITLE, JsonObject, Reason, known_values, no_object
from ledger.domain.lifecycle import DELETED, Transition

Title = Annotated[str, msgspec.Meta(min_length=1, max_length=500, extra=TITLE)]
Body = Annotated[str, msgspec.Meta(max_length=1_000_000, extra=FREE_TEXT)]


class ContentType(str, Enum):
    """Known types of content."""

    BLOG = "blog"
    EMAIL = "email"
    SOCIAL = "social"
    VIDEO_SCRIPT = "video_script"
    AD_COPY = "ad_copy"
    LANDING_PAGE = "landing_page"


Type = Annotated[str, known_values(ContentType)]


class ContentStatus(str, Enum):
    """The status of an asset."""

    DRAFT = "draft"
    REVIEW = "review"
    APPROVED = "approved"
    PUBLISHED = "published"
    ARCHIVED = "archived"


class ContentCreated(EventData, frozen=True, kw_only=True):
    """An asset was created as a draft."""

    title: Title
    content: Body
    content_type: Type
    metadata: JsonObject = msgspec.field(default_factory=no_object)
    campaign_id: UUID | None = None
    agent_job_id: UUID | None = None


class ContentRevised(EventData, frozen=True, kw_only=True):
    """The asset was revised; absent fields keep their values."""

    title: Title | None = None
    content: Body | None = None
    metadata: JsonObject = msgspec.field(default_factory=no_object)


class ContentSubmitted(EventData, frozen=True, kw_only=True):
    """The asset was submitted for review."""

    reason: Reason | None = None


class ContentApproved(EventData, frozen=True, kw_only=True):
    """The asset was approved."""

    reason: Reason | None = None


class ContentRejected(EventData, frozen=True, kw_only=True):
    """The asset was rejected and is a draft again."""

    reason: Reason | None = None


class ContentPublished(EventData, frozen=True, kw_only=True):
    """The asset was published."""

    reason: Reason | None = None


class ContentArchived(EventData, frozen=True, kw_only=True):
    """The asset was archived."""

    reason: Reason | None = None


class ContentAssigned(EventData, frozen=True, kw_only=True):
    """The asset was assigned to a campaign; null removes it from its campaign."""

    campaign_id: UUID | None


class ContentDeleted(EventData, frozen=True, kw_only=True):
    """The asset was deleted."""

    reason: Reason | None = None


_LIVE = ("draft", "review", "approved", "published")

EVENTS = (
    EventType("content.created", ContentCreated, Transition((), "draft")),
    EventType("content.revised", ContentRevised, Transition(("draft", "review"))),
    EventType("content.submitted", ContentSubmitted, Transition(("draft",), "review")),
    EventType("content.approved", ContentApproved, Transition(("review",), "approved")),
    EventType("content.rejected", ContentRejected, Transition(("review",), "draft")),
    EventType("content.published", ContentPublished, Transition(("approved",), "published")),
    EventType("content.archived", ContentArchived, Transition(_LIVE, "archived")),
    EventType("content.assigned", ContentAssigned, Transition(_LIVE), changes_campaign=True),
    EventType("content.deleted", ContentDeleted, Transition((*_LIVE, "archived"), DELETED)),
)


class ContentState(msgspec.Struct, frozen=True, array_like=True):
    """The decision state of an asset, and the campaign and job that it counts for."""

    status: str
    campaign_id: UUID | None
    agent_job_id: UUID | None


def fold(
    state: ContentState | None, transition: Transition, campaign_id: UUID | None, agent_job_id: UUID | None
) -> ContentState:
    """Fold an event that is allowed into the decision state.

    Args:
        state: The state before the event; None for the first event.
        transition: The transition of its type.
        campaign_id: The campaign that the asset counts for after the event.
        agent_job_id: The job that the asset counts for after the event.

    Returns:
        The state after the event.
    """
    status = transition.to or (state.status if state else "draft")
    return ContentState(status, campaign_id, agent_job_id)
