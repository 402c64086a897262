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
    Instant,
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
    """A job was queued. `budget` limits what it and the jobs below it may spend.

    `currency` is allowed only without a campaign. A campaign takes jobs while it is draft, active or paused (version 1:
    in any status), a parent job while it is pending or running. Without a campaign, the parent's counts.
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
    parent_job_id: UUID | None = None

    def check(self) -> None:
        if self.campaign_id is not None and self.currency is not None:
            raise InvalidFieldError("currency", "is that of the campaign; set it only for a job without a campaign")


class JobRecorded(JobQueued, frozen=True, kw_only=True):
    """A job that ran elsewhere and is over was recorded as one fact.

    Its campaign and its parent may have any status, unless they were deleted. `error_message` is required if it failed.
    `completed_at` defaults to the time at which the event happened.
    """

    status: Literal["completed", "failed", "cancelled"]
    started_at: Instant | None = None
    completed_at: Instant | None = None
    output_data: JsonObject = msgspec.field(default_factory=no_object)
    error_message: ErrorMessage | None = None

    @property
    def lacks_error_message(self) -> bool:
        """Whether it failed without a message. `check` cannot refuse that: an erasure removes a stored message."""
        return self.status == "failed" and self.error_message is None


class JobBudgetChanged(EventData, frozen=True, kw_only=True):
    """The budget of the job was changed; null removes the limit, an absent `budget` changes nothing.

    It may be less than what is spent; holds are then refused.
    """

    budget: Amount | None | msgspec.UnsetType = msgspec.UNSET
    reason: Reason | None = None


class JobStarted(EventData, frozen=True, kw_only=True):
    """The job was started."""


class JobProgressed(EventData, frozen=True, kw_only=True):
    """Job progress was reported."""

    progress: Fraction | None = None
    message: Message | None = None


class JobCompleted(EventData, frozen=True, kw_only=True):
    """The job was completed. `started_at` is for a job that was never reported as started."""

    output_data: JsonObject = msgspec.field(default_factory=no_object)
    started_at: Instant | None = None


class JobFailed(EventData, frozen=True, kw_only=True):
    """The job failed."""

    error_message: ErrorMessage


class JobRetried(EventData, frozen=True, kw_only=True):
    """The failed job was queued again."""


class JobCancelled(EventData, frozen=True, kw_only=True):
    """The job was cancelled."""

    reason: Reason | None = None


class JobDeleted(EventData, frozen=True, kw_only=True):
    """The job was deleted; possible only if it has no cost entries and all its children were deleted."""

    reason: Reason | None = None


class JobQueuedV1(EventData, frozen=True, kw_only=True):
    """`JobQueued` as the first release wrote it."""

    agent_type: Literal["seo_writer", "email_marketer", "social_media", "analyst", "optimizer"]
    input_data: JsonObject
    campaign_id: UUID | None = None
    budget: Amount | None = None
    currency: Currency | None = None
    max_retries: MaxRetries | None = None


ERROR_MESSAGE_REQUIRED = "is required if the status is failed"

LEVELS_MAX = 15
"""The most levels of a tree of jobs below its root."""

TAKES_HOLDS = ("pending", "running")
"""The statuses of a job in which money can be held, and in which it can start other jobs."""

ENDED = ("completed", "failed", "cancelled")
"""The statuses of a job that has ended."""

EVENTS = (
    EventType("job.queued", JobQueued, Transition((), "pending"), (OlderVersion(JobQueuedV1),), sets_budget=True),
    EventType("job.recorded", JobRecorded, Transition(()), sets_budget=True),
    EventType("job.budget_changed", JobBudgetChanged, Transition(("pending", "running")), sets_budget=True),
    EventType("job.started", JobStarted, Transition(("pending",), "running")),
    EventType("job.progressed", JobProgressed, Transition(("running",))),
    EventType("job.completed", JobCompleted, Transition(("pending", "running"), "completed"), ends_job=True),
    EventType("job.failed", JobFailed, Transition(("pending", "running"), "failed"), ends_job=True),
    EventType("job.retried", JobRetried, Transition(("failed",), "pending")),
    EventType("job.cancelled", JobCancelled, Transition(("pending", "running"), "cancelled"), ends_job=True),
    EventType("job.deleted", JobDeleted, Transition(ENDED, DELETED)),
)


class JobState(msgspec.Struct, frozen=True, array_like=True):
    """The decision state of a job. `budget` is None if the job has no limit.

    The states of earlier releases end before `ancestors`. `ledger.load_state` reads campaign and ancestors by index.
    """

    status: str
    campaign_id: UUID | None
    currency: str
    budget: Decimal | None
    retry_count: int
    max_retries: int | None
    ancestors: tuple[UUID, ...] = ()
    """The jobs above it, from the root of its tree to its parent."""
    children: int = 0
    """How many jobs have it as their parent and are not deleted."""


def open_state(
    payload: JobQueued, campaign_id: UUID | None, currency: str, ancestors: tuple[UUID, ...] = ()
) -> JobState:
    """Fold the first event of a job.

    Args:
        payload: The data of the event.
        campaign_id: The campaign that the job counts for, named or inherited from its parent.
        currency: The currency of its amounts.
        ancestors: The jobs above it, from the root to its parent.

    Returns:
        The state at version 1.
    """
    status = payload.status if isinstance(payload, JobRecorded) else "pending"
    return JobState(status, campaign_id, currency, payload.budget, 0, payload.max_retries, ancestors)


def fold(state: JobState, payload: EventData, transition: Transition) -> JobState:
    """Fold a later event that is allowed into the decision state."""
    if isinstance(payload, JobBudgetChanged):
        return state if payload.budget is msgspec.UNSET else msgspec.structs.replace(state, budget=payload.budget)
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
