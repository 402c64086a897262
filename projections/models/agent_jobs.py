"""The model of the table agent_jobs: status, cost, and place in the tree of jobs."""

import uuid
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    CHAR,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    String,
    Text,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from ledger.domain.job import AgentType, JobStatus
from projections.models.campaigns import Campaign
from projections.models.columns import (
    FREE_TEXT,
    LARGE_FREE_TEXT,
    NO_LABELS,
    ZERO,
    Amount,
    Base,
    OpenKind,
    Sum,
    Time,
    any_kind,
    by_label,
    kind_text,
    lower_case,
    newest_first,
    one_of,
)

if TYPE_CHECKING:
    from projections.models.budget_entries import BudgetEntry
    from projections.models.content_assets import ContentAsset


def duration_seconds(started_at: datetime | None, completed_at: datetime | None) -> float | None:
    """Return the seconds from start to completion; None if a time is unknown, or if they are in the wrong order."""
    if started_at is None or completed_at is None or completed_at < started_at:
        return None
    return (completed_at - started_at).total_seconds()


class AgentJob(Base):
    """A job of an agent, with its cost and that of the jobs below it."""

    __tablename__ = "agent_jobs"
    __table_args__ = (
        any_kind("agent_type"),
        one_of("status", JobStatus),
        CheckConstraint("held >= 0", name="held"),
        CheckConstraint("tokens_used >= 0", name="tokens_used"),
        CheckConstraint("progress BETWEEN 0 AND 1", name="progress"),
        newest_first("agent_jobs"),
        by_label("agent_jobs"),
        {"comment": "Jobs of agents: status, cost, and place in the tree of jobs. Deleted jobs have no row."},
    )

    agent_type: Mapped[AgentType | str] = mapped_column(
        OpenKind(AgentType), index=True, comment="The kind of agent, such as researcher."
    )
    status: Mapped[JobStatus] = mapped_column(
        lower_case(JobStatus),
        index=True,
        default=JobStatus.PENDING,
        server_default="pending",
        comment="pending, running, completed, failed or cancelled.",
    )
    input_data: Mapped[dict[str, Any]] = mapped_column(
        JSON, info=LARGE_FREE_TEXT, comment="What the job was given; {} if erased."
    )
    output_data: Mapped[dict[str, Any] | None] = mapped_column(
        JSON, info=LARGE_FREE_TEXT, comment="What the job produced; null before, if there was nothing, or if erased."
    )
    started_at: Mapped[datetime | None] = mapped_column(Time, comment="When it started; null before.")
    completed_at: Mapped[datetime | None] = mapped_column(
        Time, comment="When it was completed, failed or cancelled; null before."
    )
    error_message: Mapped[str | None] = mapped_column(
        Text, info=FREE_TEXT, comment="Why it failed; null unless it did, or if erased."
    )
    retry_count: Mapped[int] = mapped_column(
        default=0, server_default=ZERO, comment="How often it was queued again after it had failed."
    )
    tokens_used: Mapped[int] = mapped_column(
        BigInteger, default=0, server_default=ZERO, comment="Tokens of its own budget entries."
    )
    cost: Mapped[Decimal] = mapped_column(
        Sum,
        default=Decimal(0),
        server_default=ZERO,
        comment="The sum of the costs of its own budget entries, in `currency`.",
    )
    held: Mapped[Decimal] = mapped_column(
        Sum, default=Decimal(0), server_default=ZERO, comment="The sum of its own open holds, in `currency`."
    )
    campaign_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("campaigns.id", ondelete="SET NULL"), index=True, comment="The campaign that it counts for."
    )
    budget: Mapped[Decimal | None] = mapped_column(
        Amount, comment="The most that it and the jobs below it may spend, in `currency`; null: no limit of its own."
    )
    currency: Mapped[str] = mapped_column(CHAR(3), comment="ISO 4217 code of all its amounts.")
    progress: Mapped[Decimal | None] = mapped_column(Amount, comment="From 0 to 1, as last reported.")
    actor: Mapped[str] = mapped_column(Text, index=True, comment="The API key that queued or recorded it.")
    agent_name: Mapped[str | None] = mapped_column(
        String(100), index=True, comment="The name of the agent, as distinct from its kind."
    )
    parent_job_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("agent_jobs.id", ondelete="SET NULL"), index=True, comment="The job that started it."
    )
    root_job_id: Mapped[uuid.UUID] = mapped_column(index=True, comment="The first job of its tree; its own id there.")
    tree_cost: Mapped[Decimal] = mapped_column(
        Sum, default=Decimal(0), server_default=ZERO, comment="Its cost and that of all jobs below it, in `currency`."
    )
    labels: Mapped[dict[str, str]] = mapped_column(
        JSONB, default=dict, server_default=NO_LABELS, comment="The labels of its campaign and its own."
    )
    trace_id: Mapped[str | None] = mapped_column(String(32), index=True, comment="W3C trace id.")

    campaign: Mapped[Campaign | None] = relationship(back_populates="agent_jobs")
    content_assets: Mapped[list["ContentAsset"]] = relationship(back_populates="agent_job", passive_deletes=True)
    budget_entries: Mapped[list["BudgetEntry"]] = relationship(back_populates="agent_job", passive_deletes=True)
    parent: Mapped["AgentJob | None"] = relationship(back_populates="children", remote_side="AgentJob.id")
    children: Mapped[list["AgentJob"]] = relationship(back_populates="parent", passive_deletes=True)

    @property
    def duration_seconds(self) -> float | None:
        """Seconds from start to completion; None until both are known, or if they are in the wrong order."""
        return duration_seconds(self.started_at, self.completed_at)

    def __repr__(self) -> str:
        return f"<AgentJob {self.id} {kind_text(self.agent_type)} {self.status.value}>"
