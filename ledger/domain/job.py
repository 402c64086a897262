"""Agent jobs: `job.*` event types, their data and statuses, and the state that judges later events."""

from decimal import Decimal
from enum import Enum
from typing import Annotated, Literal
from uuid import UUID

import msgspec

from ledger.domain.codec import EventData, InvalidFieldError
from ledger.domain.errors import IllegalTransition
from ledger.domain.event_type import EventType, OlderVersion
from ledger.domain.fields import (
    FREE_TEXT,
    Amount,
    Currency,
    Fraction,
    JsonObject,
    Labels,
    Reason,
    SpanId,
    TraceId,
    known_values,
    no_object,
)
from ledger.domain.lifecycle import DELETED, Transition

Message = Annotated[str, msgspec.Meta(max_length=1000, extra=FREE_TEXT)]
ErrorMessage = Annotated[str, msgspec.Meta(min_length=1, max_length=100_000, extra=FREE_TEXT)]


AgentName = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
MaxRetries = Annotated[int, msgspec.Meta(ge=0, le=1000)]


class AgentType(str, Enum):
    """Known types of agents."""

    SEO_WRITER = "seo_writer"
    EMAIL_MARKETER = "email_marketer"
    SOCIAL_MEDIA = "social_media"
    ANALYST = "analyst"
    OPTIMIZER = "optimizer"
    RESEARCHER = "researcher"
    CODER = "coder"
    REVIEWER = "reviewer"
    PLANNER = "planner"
    SUPPORT = "support"
    OTHER = "other"


Agent = Annotated[str, known_values(AgentType)]


class JobStatus(str, Enum):
    """The status of a job."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobQueued(EventData, frozen=True, kw_only=True):
    """A job was queued. `budget` limits what it may spend; `currency` is allowed only without a campaign.

    A campaign takes jobs while it is draft, active or paused (version 1: in any status).
    """

    agent_type: Agent
    input_data: JsonObject
    campaign_id: UUID | None = None
    budget: Amount | None = None
    currency: Currency | None = None
    max_retries: MaxRetries | None = None
    agent_name: AgentName | None = None
    labels: Labels | None = None
    trace_id: TraceId | None = None
    span_id: SpanId | None = None

    def check(self) -> None:
        if self.campaign_id is not None and self.currency is not None:
            raise InvalidFieldError("currency", "is that of the campaign; set it only for a job without a campaign")


class JobStarted(EventData, frozen=True, kw_only=True):
    """The job was started."""


class JobProgressed(EventData, frozen=True, kw_only=True):
    """Job progress was reported."""

    progress: Fraction | None = None
    message: Message | None = None


class JobCompleted(EventData, frozen=True, kw_only=True):
    """The job was completed."""

    output_data: JsonObject = msgspec.field(default_factory=no_object)


class JobFailed(EventData, frozen=True, kw_only=True):
    """The job failed."""

    error_message: ErrorMessage


class JobRetried(EventData, frozen=True, kw_only=True):
    """The failed job was queued again."""


class JobCancelled(EventData, frozen=True, kw_only=True):
    """The job was cancelled."""

    reason: Reason | None = None


class JobDeleted(EventData, frozen=True, kw_only=True):
    """The job was deleted; possible only if it has no cost entries."""

    reason: Reason | None = None


class JobQueuedV1(EventData, frozen=True, kw_only=True):
    """`JobQueued` as the first release wrote it."""

    agent_type: Literal["seo_writer", "email_marketer", "social_media", "analyst", "optimizer"]
    input_data: JsonObject
    campaign_id: UUID | None = None
    budget: Amount | None = None
    currency: Currency | None = None
    max_retries: MaxRetries | None = None


TAKES_HOLDS = ("pending", "running")
"""The statuses of a job in which money can be held."""

ENDED = ("completed", "failed", "cancelled")
"""The statuses of a job that has ended."""

EVENTS = (
    EventType("job.queued", JobQueued, Transition((), "pending"), (OlderVersion(JobQueuedV1),), sets_budget=True),
    EventType("job.started", JobStarted, Transition(("pending",), "running")),
    EventType("job.progressed", JobProgressed, Transition(("running",))),
    EventType("job.completed", JobCompleted, Transition(("running",), "completed"), ends_job=True),
    EventType("job.failed", JobFailed, Transition(("pending", "running"), "failed"), ends_job=True),
    EventType("job.retried", JobRetried, Transition(("failed",), "pending")),
    EventType("job.cancelled", JobCancelled, Transition(("pending", "running"), "cancelled"), ends_job=True),
    EventType("job.deleted", JobDeleted, Transition(ENDED, DELETED)),
)


class JobState(msgspec.Struct, frozen=True, array_like=True):
    """The decision state of a job. `budget` is None if the job has no limit."""

    status: str
    campaign_id: UUID | None
    currency: str
    budget: Decimal | None
    retry_count: int
    max_retries: int | None


def fold(state: JobState | None, payload: EventData, transition: Transition, currency: str) -> JobState:
    """Fold an event that is allowed into the decision state.

    Args:
        state: The state before the event; None for the first event.
        payload: The data of the event.
        transition: The transition of its type.
        currency: The currency of a job that is queued; ignored for later events.

    Returns:
        The state after the event.
    """
    if isinstance(payload, JobQueued):
        return JobState("pending", payload.campaign_id, currency, payload.budget, 0, payload.max_retries)
    assert state is not None
    retries = state.retry_count + isinstance(payload, JobRetried)
    return msgspec.structs.replace(state, status=transition.to or state.status, retry_count=retries)


def require_retry_left(state: JobState) -> None:
    """Raise `IllegalTransition` if the job has used all of its retries."""
    if state.max_retries is not None and state.retry_count >= state.max_retries:
        raise IllegalTransition(
            f"job.retried is not possible: {state.retry_count} of {state.max_retries} retries are used",
            state.status,
            ("failed",),
        )
