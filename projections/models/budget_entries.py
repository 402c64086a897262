"""The model of the table budget_entries: costs, credits and holds."""

import uuid
from datetime import datetime
from decimal import Decimal

from sqlalchemy import (
    CHAR,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    String,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from ledger.domain.cost import EntryStatus, ResourceType
from projections.models.agent_jobs import AgentJob
from projections.models.campaigns import Campaign
from projections.models.columns import (
    FREE_TEXT,
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
        Index("budget_entries_priced_idx", "id", postgresql_where=text("price_position IS NOT NULL")),
        Index("budget_entries_unpriced_idx", "id", postgresql_where=text("unpriced")),
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
        return f"<BudgetEntry {self.id} {kind_text(self.resource_type)} {self.status.value}>"
