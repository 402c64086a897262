"""SQLAlchemy models of the four read models, for programs that read the tables: `select(Campaign)`.

The worker does not use a session: it writes the tables set-wise (`projections.writer`).
"""

import uuid
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any

from sqlalchemy import (
    CHAR,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    MetaData,
    Numeric,
    String,
    Text,
    TypeDecorator,
    text,
)
from sqlalchemy import Enum as SqlEnum
from sqlalchemy.dialects.postgresql import JSON, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from ledger.domain import money
from ledger.domain.campaign import CampaignStatus
from ledger.domain.content import ContentStatus, ContentType
from ledger.domain.cost import EntryStatus, ResourceType
from ledger.domain.job import AgentType, JobStatus
from ledger.log.tables import NAMING

__all__ = [
    "AgentJob",
    "AgentType",
    "Base",
    "BudgetEntry",
    "Campaign",
    "CampaignStatus",
    "ContentAsset",
    "ContentStatus",
    "ContentType",
    "EntryStatus",
    "JobStatus",
    "ResourceType",
]

Time = DateTime(timezone=True)
Amount = Numeric(28, 18)
Sum = Numeric(38, 18)
ZERO = text("0")
NO_LABELS = text("'{}'::jsonb")

FREE_TEXT = {"free_text": True}
"""`info=` of every column that free text of events is folded into: an erasure overwrites it."""

LARGE_FREE_TEXT = {"free_text": True, "large": True}
"""`info=` of free text that may be large: a fold loads and writes it only if an event changes it."""


class OpenKind(TypeDecorator[Enum | str]):
    """A varchar column of kinds: the member of the enum if the value is known, otherwise the text."""

    impl = String(63)
    cache_ok = True

    def __init__(self, known: type[Enum]) -> None:
        super().__init__()
        self.known = known

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Return the text to store."""
        return None if value is None else _text(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Return the member of the enum, or the text if there is none."""
        return self.known._value2member_map_.get(value, value)


def lower_case(enum: type[Enum]) -> SqlEnum:
    """Return the type of a varchar column for the enum's values; `one_of` is its check constraint."""
    return SqlEnum(enum, native_enum=False, create_constraint=False, length=32, values_callable=_values)


def one_of(column: str, enum: type[Enum]) -> CheckConstraint:
    """Return the check constraint that allows only the enum's values in a column."""
    values = ", ".join(f"'{value}'" for value in _values(enum))
    return CheckConstraint(f"{column} IN ({values})", name=column)


def any_kind(column: str) -> CheckConstraint:
    """Return the check constraint of a column of type `OpenKind`."""
    return CheckConstraint(f"{column} ~ '^[a-z][a-z0-9_.-]{{0,62}}$'", name=column)


def newest_first(table: str) -> Index:
    """Return the index for the default order of the collections."""
    return Index(f"{table}_newest_first_idx", text("created_at DESC"), "id")


def by_label(table: str) -> Index:
    """Return the index for filters by label."""
    return Index(f"{table}_labels_idx", "labels", postgresql_using="gin")


def _values(enum: type[Enum]) -> list[str]:
    return [str(member.value) for member in enum]


def _text(kind: Enum | str) -> str:
    return str(kind.value) if isinstance(kind, Enum) else kind


def duration_seconds(started_at: datetime | None, completed_at: datetime | None) -> float | None:
    """Return the seconds from start to completion; None if a time is unknown, or if they are in the wrong order."""
    if started_at is None or completed_at is None or completed_at < started_at:
        return None
    return (completed_at - started_at).total_seconds()


class Base(DeclarativeBase):
    """The columns of every read model."""

    metadata = MetaData(naming_convention=NAMING)

    id: Mapped[uuid.UUID] = mapped_column(
        primary_key=True, sort_order=-1, comment="The id of the stream whose events the row is made of."
    )
    created_at: Mapped[datetime] = mapped_column(Time, comment="When the first event was recorded.")
    updated_at: Mapped[datetime] = mapped_column(Time, comment="When the last event that changed the row was recorded.")
    position: Mapped[int] = mapped_column(BigInteger, comment="The position in the log of that last event.")


class Campaign(Base):
    """A campaign with its budget, spend, holds and results."""

    __tablename__ = "campaigns"
    __table_args__ = (
        one_of("status", CampaignStatus),
        CheckConstraint("budget >= 0", name="budget"),
        CheckConstraint("held >= 0", name="held"),
        newest_first("campaigns"),
        by_label("campaigns"),
        {"comment": "Campaigns: budget, spend, held money and results. One row each; deleted campaigns have none."},
    )

    name: Mapped[str] = mapped_column(String(255), index=True, info=FREE_TEXT, comment="Its name; empty if erased.")
    description: Mapped[str | None] = mapped_column(
        String(1000), info=FREE_TEXT, comment="What it is about; null if none was given, or if it was erased."
    )
    status: Mapped[CampaignStatus] = mapped_column(
        lower_case(CampaignStatus),
        index=True,
        default=CampaignStatus.DRAFT,
        server_default="draft",
        comment="draft, active, paused, completed or archived.",
    )
    budget: Mapped[Decimal | None] = mapped_column(
        Amount, comment="The limit of spend and held money, in `currency`; null: no limit."
    )
    spend: Mapped[Decimal] = mapped_column(
        Sum,
        default=Decimal(0),
        server_default=ZERO,
        comment="The sum of the costs of its budget entries, in `currency`; negative if credits exceed them.",
    )
    held: Mapped[Decimal] = mapped_column(
        Sum, default=Decimal(0), server_default=ZERO, comment="The sum of its open holds, in `currency`."
    )
    currency: Mapped[str] = mapped_column(CHAR(3), comment="ISO 4217 code of all its amounts.")
    start_date: Mapped[datetime] = mapped_column(Time, comment="When it starts.")
    end_date: Mapped[datetime | None] = mapped_column(Time, comment="When it ends; null: open end.")
    impressions: Mapped[int] = mapped_column(
        BigInteger, default=0, server_default=ZERO, comment="Impressions recorded so far."
    )
    clicks: Mapped[int] = mapped_column(BigInteger, default=0, server_default=ZERO, comment="Clicks recorded so far.")
    conversions: Mapped[int] = mapped_column(
        BigInteger, default=0, server_default=ZERO, comment="Conversions recorded so far."
    )
    revenue: Mapped[Decimal] = mapped_column(
        Sum, default=Decimal(0), server_default=ZERO, comment="Revenue recorded so far, in `currency`."
    )
    roi: Mapped[Decimal] = mapped_column(
        Numeric,
        default=Decimal(0),
        server_default=ZERO,
        comment="(revenue - spend) / spend, rounded to 10 decimals; 0 unless spend is more than 0.",
    )
    labels: Mapped[dict[str, str]] = mapped_column(
        JSONB, default=dict, server_default=NO_LABELS, comment="Its labels, which all its jobs and entries have too."
    )

    content_assets: Mapped[list["ContentAsset"]] = relationship(back_populates="campaign", passive_deletes=True)
    agent_jobs: Mapped[list["AgentJob"]] = relationship(back_populates="campaign", passive_deletes=True)
    budget_entries: Mapped[list["BudgetEntry"]] = relationship(back_populates="campaign", passive_deletes=True)

    @property
    def budget_remaining(self) -> Decimal | None:
        """The budget minus the spend; negative if the campaign is over budget, None if it has no limit."""
        return None if self.budget is None else money.subtract(self.budget, self.spend)

    @property
    def budget_used_percentage(self) -> Decimal | None:
        """The spend in percent of the budget; 0 if the budget is 0, None if it has no limit."""
        return None if self.budget is None else money.percentage(self.spend, self.budget)

    def __repr__(self) -> str:
        return f"<Campaign {self.id} {self.name!r} {self.status.value}>"


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
        return f"<AgentJob {self.id} {_text(self.agent_type)} {self.status.value}>"


class ContentAsset(Base):
    """A piece of content. Its column `metadata` is the attribute `asset_metadata`: SQLAlchemy reserves `metadata`."""

    __tablename__ = "content_assets"
    __table_args__ = (
        any_kind("content_type"),
        one_of("status", ContentStatus),
        newest_first("content_assets"),
        {"comment": "Pieces of content with their status. Deleted assets have no row."},
    )

    title: Mapped[str] = mapped_column(String(500), index=True, info=FREE_TEXT, comment="Its title; empty if erased.")
    content: Mapped[str] = mapped_column(Text, info=LARGE_FREE_TEXT, comment="The text itself; empty if erased.")
    content_type: Mapped[ContentType | str] = mapped_column(
        OpenKind(ContentType), index=True, comment="The kind of content, such as blog."
    )
    status: Mapped[ContentStatus] = mapped_column(
        lower_case(ContentStatus),
        index=True,
        default=ContentStatus.DRAFT,
        server_default="draft",
        comment="draft, review, approved, published or archived.",
    )
    asset_metadata: Mapped[dict[str, Any]] = mapped_column(
        "metadata",
        JSON,
        default=dict,
        server_default=text("'{}'::json"),
        info=LARGE_FREE_TEXT,
        comment="Any further data, as sent; {} if erased.",
    )
    campaign_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("campaigns.id", ondelete="SET NULL"), index=True, comment="The campaign that it belongs to."
    )
    agent_job_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("agent_jobs.id", ondelete="SET NULL"), index=True, comment="The job that made it."
    )

    campaign: Mapped[Campaign | None] = relationship(back_populates="content_assets")
    agent_job: Mapped[AgentJob | None] = relationship(back_populates="content_assets")

    def __repr__(self) -> str:
        return f"<ContentAsset {self.id} {self.title!r} {self.status.value}>"


class BudgetEntry(Base):
    """One cost or credit: held, settled, released or expired."""

    __tablename__ = "budget_entries"
    __table_args__ = (
        any_kind("resource_type"),
        one_of("status", EntryStatus),
        CheckConstraint("tokens_used >= 0", name="tokens_used"),
        # A held entry costs 0; any other entry holds 0.
        CheckConstraint("CASE status WHEN 'held' THEN held >= 0 AND cost = 0 ELSE held = 0 END", name="held"),
        CheckConstraint("status <> 'held' OR expires_at IS NOT NULL", name="expires_at"),
        Index(None, "campaign_id", "occurred_at"),
        newest_first("budget_entries"),
        by_label("budget_entries"),
        {"comment": "Costs, credits and holds of money. One row each, never deleted."},
    )

    resource_type: Mapped[ResourceType | str] = mapped_column(
        OpenKind(ResourceType), index=True, comment="What the money was spent on, such as llm_api."
    )
    status: Mapped[EntryStatus] = mapped_column(
        lower_case(EntryStatus), index=True, comment="held, settled, released or expired; only settled entries cost."
    )
    cost: Mapped[Decimal] = mapped_column(
        Sum,
        default=Decimal(0),
        server_default=ZERO,
        comment="What was spent, adjustments included, in `currency`; negative for a credit, 0 while unpriced.",
    )
    tokens_used: Mapped[int] = mapped_column(
        BigInteger, default=0, server_default=ZERO, comment="Tokens as reported, or input and output tokens together."
    )
    model_used: Mapped[str | None] = mapped_column(
        String(255), index=True, comment="The model, as the provider names it."
    )
    description: Mapped[str | None] = mapped_column(
        String(500), info=FREE_TEXT, comment="What it was for; null if none was given, or if it was erased."
    )
    agent_job_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("agent_jobs.id", ondelete="CASCADE"), index=True, comment="The job that it counts for."
    )
    campaign_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("campaigns.id", ondelete="SET NULL"), comment="The campaign that it counts for."
    )
    held: Mapped[Decimal] = mapped_column(
        Amount, default=Decimal(0), server_default=ZERO, comment="What an open hold reserves, in `currency`."
    )
    currency: Mapped[str] = mapped_column(CHAR(3), comment="ISO 4217 code of its amounts.")
    provider: Mapped[str | None] = mapped_column(String(255), comment="Who is paid.")
    occurred_at: Mapped[datetime] = mapped_column(
        Time, index=True, comment="When the money was spent; until then, when it was reserved."
    )
    expires_at: Mapped[datetime | None] = mapped_column(Time, comment="When its hold expires or would have expired.")
    actor: Mapped[str] = mapped_column(Text, index=True, comment="The API key that recorded or reserved it.")
    input_tokens: Mapped[int | None] = mapped_column(
        BigInteger, comment="Input tokens, cached ones included; null if not reported."
    )
    output_tokens: Mapped[int | None] = mapped_column(
        BigInteger, comment="Output tokens, reasoning included; null if not reported."
    )
    cache_read_tokens: Mapped[int | None] = mapped_column(
        BigInteger, comment="Input tokens read from a cache; null if not reported."
    )
    cache_write_tokens: Mapped[int | None] = mapped_column(
        BigInteger, comment="Input tokens written to a cache; null if not reported."
    )
    reasoning_tokens: Mapped[int | None] = mapped_column(
        BigInteger, comment="Output tokens of reasoning; null if not reported."
    )
    usage: Mapped[dict[str, int] | None] = mapped_column(
        JSONB, comment="All counters of the call as reported; null if none were."
    )
    service_tier: Mapped[str | None] = mapped_column(
        String(32), comment="standard, batch, flex or priority; null if not reported."
    )
    response_id: Mapped[str | None] = mapped_column(String(255), index=True, comment="The provider's id of its reply.")
    labels: Mapped[dict[str, str]] = mapped_column(
        JSONB, default=dict, server_default=NO_LABELS, comment="The labels of its campaign, of its job, and its own."
    )
    trace_id: Mapped[str | None] = mapped_column(String(32), index=True, comment="W3C trace id.")
    adjusted: Mapped[Decimal] = mapped_column(
        Sum,
        default=Decimal(0),
        server_default=ZERO,
        comment="The sum of its adjustments, which `cost` includes, in `currency`.",
    )
    unpriced: Mapped[bool] = mapped_column(
        default=False,
        server_default=text("false"),
        comment="True while its cost is unknown: usage was reported, and no price was found.",
    )
    price_position: Mapped[int | None] = mapped_column(
        BigInteger, comment="The position of the price event by which its cost was computed; null if it was sent."
    )

    agent_job: Mapped[AgentJob | None] = relationship(back_populates="budget_entries")
    campaign: Mapped[Campaign | None] = relationship(back_populates="budget_entries")

    def __repr__(self) -> str:
        return f"<BudgetEntry {self.id} {_text(self.resource_type)} {self.status.value}>"
