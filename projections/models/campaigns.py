"""The model of the table campaigns: budget, spend, holds and results."""

from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from sqlalchemy import (
    CHAR,
    BigInteger,
    CheckConstraint,
    Numeric,
    String,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from ledger.domain import money
from ledger.domain.campaign import CampaignStatus
from projections.models.columns import (
    FREE_TEXT,
    NO_LABELS,
    ZERO,
    Amount,
    Base,
    Sum,
    Time,
    by_label,
    lower_case,
    newest_first,
    one_of,
)

if TYPE_CHECKING:
    from projections.models.agent_jobs import AgentJob
    from projections.models.budget_entries import BudgetEntry
    from projections.models.content_assets import ContentAsset


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
