"""The model `Price` of the table `prices`: what models cost, from when on."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import CHAR, BigInteger, CheckConstraint, String, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from projections.models.columns import Base, Time, newest_first

NO_ITEMS = text("'[]'::jsonb")


class Price(Base):
    """What a provider charges for a model from a time on."""

    __tablename__ = "prices"
    __table_args__ = (
        CheckConstraint("effective_to >= effective_from", name="effective_to"),
        newest_first("prices"),
        {"comment": "Prices of models: a row for each time from which a model has a price, or has none any more."},
    )

    # The id is derived from the event, since a stream has several rows.
    id: Mapped[uuid.UUID] = mapped_column(
        primary_key=True, sort_order=-1, comment="The id of the row, derived from its price event."
    )
    stream_id: Mapped[uuid.UUID] = mapped_column(
        index=True, comment="The stream of all prices of the provider, model, service tier and currency."
    )
    price_position: Mapped[int] = mapped_column(
        BigInteger, index=True, comment="The position of its price event, as in budget_entries.price_position."
    )
    provider: Mapped[str] = mapped_column(String(255), index=True, comment="Who charges for the model, such as openai.")
    model: Mapped[str] = mapped_column(String(255), index=True, comment="The name of the model.")
    names: Mapped[list[str]] = mapped_column(
        JSONB, default=list, server_default=NO_ITEMS, comment="Further names of the model, as a JSON array."
    )
    prefixes: Mapped[list[str]] = mapped_column(
        JSONB,
        default=list,
        server_default=NO_ITEMS,
        comment="Beginnings of names that have this price too, as a JSON array; the longest that fits counts.",
    )
    service_tier: Mapped[str] = mapped_column(String(32), comment="standard, batch, flex or priority.")
    currency: Mapped[str] = mapped_column(CHAR(3), comment="ISO 4217 code of its rates.")
    per: Mapped[int] = mapped_column(BigInteger, comment="The number of units that a rate is for, such as 1000000.")
    rates: Mapped[dict[str, str]] = mapped_column(
        JSONB, comment="What `per` units of each usage counter cost, in `currency`; {} if withdrawn."
    )
    tiers: Mapped[list[dict[str, Any]]] = mapped_column(
        JSONB,
        default=list,
        server_default=NO_ITEMS,
        comment="Other rates of calls with more than above_input_tokens, as a JSON array.",
    )
    effective_from: Mapped[datetime] = mapped_column(Time, comment="When it begins to apply.")
    effective_to: Mapped[datetime | None] = mapped_column(
        Time, comment="When the next price or a withdrawal begins to apply instead; null: none is known."
    )
    withdrawn: Mapped[bool] = mapped_column(
        default=False, server_default=text("false"), comment="True if the model has no price from effective_from on."
    )
    source: Mapped[dict[str, str] | None] = mapped_column(
        JSONB, comment="Where the price was taken from: name, version, sha256; null if withdrawn."
    )
    actor: Mapped[str] = mapped_column(Text, comment="The API key that published or withdrew it.")

    def __repr__(self) -> str:
        return f"<Price {self.id} {self.provider} {self.model} from {self.effective_from}>"
