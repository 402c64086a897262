"""The journals `cost_postings` and `denied_holds`: one row an event, never changed."""

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import CHAR, BigInteger, CheckConstraint, Index, String, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from projections.models.columns import FREE_TEXT, Amount, Base, Sum, Time


class JournalBase(DeclarativeBase):
    """The column that every journal has."""

    metadata = Base.metadata

    position: Mapped[int] = mapped_column(
        BigInteger,
        primary_key=True,
        autoincrement=False,
        sort_order=-1,
        comment="The position of the event in the log.",
    )


class CostPosting(JournalBase):
    """A movement of money: what was booked when, on which entry."""

    __tablename__ = "cost_postings"
    __table_args__ = (
        CheckConstraint("type IN ('recorded', 'settled', 'credited', 'adjusted', 'priced')", name="type"),
        Index(None, "entry_id"),
        Index(None, "booked_at"),
        Index(None, "campaign_id", "booked_at"),
        {"comment": "The journal of costs: one row for each movement of money, never changed."},
    )

    entry_id: Mapped[uuid.UUID] = mapped_column(comment="The budget entry; its id in budget_entries.")
    type: Mapped[str] = mapped_column(String(32), comment="recorded, settled, credited, adjusted or priced.")
    amount: Mapped[Decimal] = mapped_column(
        Sum, comment="What the movement adds to the cost of the entry, in `currency`; negative for credits."
    )
    currency: Mapped[str] = mapped_column(CHAR(3), comment="ISO 4217 code of the amount.")
    tokens_used: Mapped[int] = mapped_column(BigInteger, comment="What it adds to the tokens of the entry.")
    unpriced: Mapped[bool] = mapped_column(
        comment="True if the cost was unknown when it was booked; a later posting of type priced has it."
    )
    booked_at: Mapped[datetime] = mapped_column(Time, comment="When it was recorded.")
    occurred_at: Mapped[datetime] = mapped_column(Time, comment="When it happened, as the event says.")
    campaign_id: Mapped[uuid.UUID | None] = mapped_column(
        comment="The campaign that it counts for; it stays when the campaign is deleted."
    )
    agent_job_id: Mapped[uuid.UUID | None] = mapped_column(comment="The job that it counts for.")
    actor: Mapped[str] = mapped_column(Text, comment="The API key that recorded it.")
    reason: Mapped[str | None] = mapped_column(
        Text, info=FREE_TEXT, comment="Why; null if none was given, or if it was erased."
    )


class DeniedHold(JournalBase):
    """A hold that was refused because of a budget."""

    __tablename__ = "denied_holds"
    __table_args__ = (
        Index(None, "denied_at"),
        {"comment": "Holds that were refused because of a budget: one row each, never changed."},
    )

    denied_at: Mapped[datetime] = mapped_column(Time, comment="When it was refused.")
    amount: Mapped[Decimal] = mapped_column(Amount, comment="What was asked for, in `currency`.")
    currency: Mapped[str] = mapped_column(CHAR(3), comment="ISO 4217 code of the amount.")
    resource_type: Mapped[str] = mapped_column(String(63), comment="What the money was for, such as llm_api.")
    model_used: Mapped[str | None] = mapped_column(String(255), comment="The model, as the provider names it.")
    provider: Mapped[str | None] = mapped_column(String(255), comment="Who would have been paid.")
    campaign_id: Mapped[uuid.UUID | None] = mapped_column(comment="The campaign that it would have counted for.")
    agent_job_id: Mapped[uuid.UUID | None] = mapped_column(comment="The job that it would have counted for.")
    scopes: Mapped[list[dict[str, Any]]] = mapped_column(
        JSONB, comment="The budgets that it did not fit: scope, limit, spent, held, requested and available of each."
    )
