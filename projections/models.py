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
    ForeignKey,
    Index,
    MetaData,
    Numeric,
    String,
    Text,
    text,
)
from sqlalchemy import Enum as SqlEnum
from sqlalchemy.dialects.postgresql import JSON
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
Amount = Numeric(20, 10)
Sum = Numeric(38, 10)
ZERO = text("0")

FREE_TEXT = {"free_text": True}
"""`info=` of every column that free text of events is folded into: an erasure overwrites it."""

LARGE_FREE_TEXT = {"free_text": True, "large": True}
"""`info=` of free text that may be large: a fold loads and writes it only if an event changes it."""


def lower_case(enum: type[Enum]) -> SqlEnum:
    """Return the type of a varchar column for the enum's values; `one_of` is its check constraint."""
    return SqlEnum(enum, native_enum=False, create_constraint=False, length=32, values_callable=_values)


def one_of(column: str, enum: type[Enum]) -> CheckConstraint:
    """Return the check constraint that allows only the enum's values in a column."""
    values = ", ".join(f"'{value}'" for value in _values(enum))
    return CheckConstraint(f"{column} IN ({values})", name=column)


def newest_first(table: str) -> Index:
    """Return the index for the default order of the collections."""
    return Index(f"{table}_newest_first_idx", text("created_at DESC"), "id")


def _values(enum: type[Enum]) -> list[str]:
    return [str(member.value) for member in enum]


def duration_seconds(started_at: datetime | None, completed_at: datetime | None) -> float | None:
    """Return the seconds from start to completion; None if a time is unknown, or if they are in the wrong order."""
    if started_at is None or completed_at is None or completed_at < started_at:
        return None
    return (completed_at - started_at).total_seconds()


class Base(DeclarativeBase):
    """The columns of every read model: `created_at` is the time of recording of a row's first event, `updated_at` that
    of its last, `position` the position of its last.
    """

    metadata = MetaData(naming_convention=NAMING)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, sort_order=-1)
    created_at: Mapped[datetime] = mapped_column(Time)
    updated_at: Mapped[datetime] = mapped_column(Time)
    position: Mapped[int] = mapped_column(BigInteger)


class Campaign(Base):
    """A campaign with its budget, spend, holds and results."""

    __tablename__ = "campaigns"
    __table_args__ = (
        one_of("status", CampaignStatus),
        CheckConstraint("budget >= 0", name="budget"),
        CheckConstraint("spend >= 0", name="spend"),
        CheckConstraint("held >= 0", name="held"),
        newest_first("campaigns"),
    )

    name: Mapped[str] = mapped_column(String(255), index=True, info=FREE_TEXT)
    description: Mapped[str | None] = mapped_column(String(1000), info=FREE_TEXT)
    status: Mapped[CampaignStatus] = mapped_column(
        lower_case(CampaignStatus), index=True, default=CampaignStatus.DRAFT, server_default="draft"
    )
    budget: Mapped[Decimal] = mapped_column(Amount)
    spend: Mapped[Decimal] = mapped_column(Sum, default=Decimal(0), server_default=ZERO)
    held: Mapped[Decimal] = mapped_column(Sum, default=Decimal(0), server_default=ZERO)
    currency: Mapped[str] = mapped_column(CHAR(3))
    start_date: Mapped[datetime] = mapped_column(Time)
    end_date: Mapped[datetime | None] = mapped_column(Time)
    impressions: Mapped[int] = mapped_column(BigInteger, default=0, server_default=ZERO)
    clicks: Mapped[int] = mapped_column(BigInteger, default=0, server_default=ZERO)
    conversions: Mapped[int] = mapped_column(BigInteger, default=0, server_default=ZERO)
    revenue: Mapped[Decimal] = mapped_column(Sum, default=Decimal(0), server_default=ZERO)
    roi: Mapped[Decimal] = mapped_column(Numeric, default=Decimal(0), server_default=ZERO)

    content_assets: Mapped[list["ContentAsset"]] = relationship(back_populates="campaign", passive_deletes=True)
    agent_jobs: Mapped[list["AgentJob"]] = relationship(back_populates="campaign", passive_deletes=True)

    @property
    def budget_remaining(self) -> Decimal:
        """The budget minus the spend; negative if the campaign is over budget."""
        return money.subtract(self.budget, self.spend)

    @property
    def budget_used_percentage(self) -> Decimal:
        """The spend in percent of the budget; 0 if the budget is 0."""
        return money.percentage(self.spend, self.budget)

    def __repr__(self) -> str:
        return f"<Campaign {self.id} {self.name!r} {self.status.value}>"


class AgentJob(Base):
    """A job of an agent, with its cost."""

    __tablename__ = "agent_jobs"
    __table_args__ = (
        one_of("agent_type", AgentType),
        one_of("status", JobStatus),
        CheckConstraint("cost >= 0", name="cost"),
        CheckConstraint("held >= 0", name="held"),
        CheckConstraint("tokens_used >= 0", name="tokens_used"),
        CheckConstraint("progress BETWEEN 0 AND 1", name="progress"),
        newest_first("agent_jobs"),
    )

    agent_type: Mapped[AgentType] = mapped_column(lower_case(AgentType), index=True)
    status: Mapped[JobStatus] = mapped_column(
        lower_case(JobStatus), index=True, default=JobStatus.PENDING, server_default="pending"
    )
    input_data: Mapped[dict[str, Any]] = mapped_column(JSON, info=LARGE_FREE_TEXT)
    output_data: Mapped[dict[str, Any] | None] = mapped_column(JSON, info=LARGE_FREE_TEXT)
    started_at: Mapped[datetime | None] = mapped_column(Time)
    completed_at: Mapped[datetime | None] = mapped_column(Time)
    error_message: Mapped[str | None] = mapped_column(Text, info=FREE_TEXT)
    retry_count: Mapped[int] = mapped_column(default=0, server_default=ZERO)
    tokens_used: Mapped[int] = mapped_column(BigInteger, default=0, server_default=ZERO)
    cost: Mapped[Decimal] = mapped_column(Sum, default=Decimal(0), server_default=ZERO)
    held: Mapped[Decimal] = mapped_column(Sum, default=Decimal(0), server_default=ZERO)
    campaign_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("campaigns.id", ondelete="SET NULL"), index=True)
    budget: Mapped[Decimal | None] = mapped_column(Amount)
    currency: Mapped[str] = mapped_column(CHAR(3))
    progress: Mapped[Decimal | None] = mapped_column(Amount)

    campaign: Mapped[Campaign | None] = relationship(back_populates="agent_jobs")
    content_assets: Mapped[list["ContentAsset"]] = relationship(back_populates="agent_job", passive_deletes=True)
    budget_entries: Mapped[list["BudgetEntry"]] = relationship(back_populates="agent_job", passive_deletes=True)

    @property
    def duration_seconds(self) -> float | None:
        """Seconds from start to completion; None until both are known, or if they are in the wrong order."""
        return duration_seconds(self.started_at, self.completed_at)

    def __repr__(self) -> str:
        return f"<AgentJob {self.id} {self.agent_type.value} {self.status.value}>"


class ContentAsset(Base):
    """A piece of content. Its column `metadata` is the attribute `asset_metadata`: SQLAlchemy reserves `metadata`."""

    __tablename__ = "content_assets"
    __table_args__ = (
        one_of("content_type", ContentType),
        one_of("status", ContentStatus),
        newest_first("content_assets"),
    )

    title: Mapped[str] = mapped_column(String(500), index=True, info=FREE_TEXT)
    content: Mapped[str] = mapped_column(Text, info=LARGE_FREE_TEXT)
    content_type: Mapped[ContentType] = mapped_column(lower_case(ContentType), index=True)
    status: Mapped[ContentStatus] = mapped_column(
        lower_case(ContentStatus), index=True, default=ContentStatus.DRAFT, server_default="draft"
    )
    asset_metadata: Mapped[dict[str, Any]] = mapped_column(
        "metadata", JSON, default=dict, server_default=text("'{}'::json"), info=LARGE_FREE_TEXT
    )
    campaign_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("campaigns.id", ondelete="SET NULL"), index=True)
    agent_job_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("agent_jobs.id", ondelete="SET NULL"), index=True)

    campaign: Mapped[Campaign | None] = relationship(back_populates="content_assets")
    agent_job: Mapped[AgentJob | None] = relationship(back_populates="content_assets")

    def __repr__(self) -> str:
        return f"<ContentAsset {self.id} {self.title!r} {self.status.value}>"


class BudgetEntry(Base):
    """One cost: held, settled, released or expired."""

    __tablename__ = "budget_entries"
    __table_args__ = (
        one_of("resource_type", ResourceType),
        one_of("status", EntryStatus),
        CheckConstraint("cost >= 0", name="cost"),
        CheckConstraint("tokens_used >= 0", name="tokens_used"),
        # A held entry holds more than 0 and costs 0; any other entry holds 0.
        CheckConstraint("CASE status WHEN 'held' THEN held > 0 AND cost = 0 ELSE held = 0 END", name="held"),
        CheckConstraint("status <> 'held' OR expires_at IS NOT NULL", name="expires_at"),
        Index(None, "campaign_id", "occurred_at"),
        newest_first("budget_entries"),
    )

    resource_type: Mapped[ResourceType] = mapped_column(lower_case(ResourceType), index=True)
    status: Mapped[EntryStatus] = mapped_column(lower_case(EntryStatus), index=True)
    cost: Mapped[Decimal] = mapped_column(Sum, default=Decimal(0), server_default=ZERO)
    tokens_used: Mapped[int] = mapped_column(BigInteger, default=0, server_default=ZERO)
    model_used: Mapped[str | None] = mapped_column(String(100), index=True)
    description: Mapped[str | None] = mapped_column(String(500), info=FREE_TEXT)
    agent_job_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("agent_jobs.id", ondelete="CASCADE"), index=True)
    campaign_id: Mapped[uuid.UUID | None]
    held: Mapped[Decimal] = mapped_column(Amount, default=Decimal(0), server_default=ZERO)
    currency: Mapped[str] = mapped_column(CHAR(3))
    provider: Mapped[str | None] = mapped_column(String(100))
    occurred_at: Mapped[datetime] = mapped_column(Time, index=True)
    expires_at: Mapped[datetime | None] = mapped_column(Time)

    agent_job: Mapped[AgentJob | None] = relationship(back_populates="budget_entries")

    def __repr__(self) -> str:
        return f"<BudgetEntry {self.id} {self.resource_type.value} {self.status.value}>"
