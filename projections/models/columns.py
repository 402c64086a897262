"""What the models share: column types, check constraints, indexes, columns of every read model."""

import uuid
from datetime import datetime
from enum import Enum
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    Index,
    MetaData,
    Numeric,
    String,
    TypeDecorator,
    text,
)
from sqlalchemy import Enum as SqlEnum
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from ledger.log.tables import NAMING

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
        return None if value is None else kind_text(value)

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


def kind_text(kind: Enum | str) -> str:
    """Return the text of a kind, whether it is known or not."""
    return str(kind.value) if isinstance(kind, Enum) else kind


class Base(DeclarativeBase):
    """The columns of every read model."""

    metadata = MetaData(naming_convention=NAMING)

    id: Mapped[uuid.UUID] = mapped_column(
        primary_key=True, sort_order=-1, comment="The id of the stream whose events the row is made of."
    )
    created_at: Mapped[datetime] = mapped_column(Time, comment="When the first event was recorded.")
    updated_at: Mapped[datetime] = mapped_column(Time, comment="When the last event that changed the row was recorded.")
    position: Mapped[int] = mapped_column(BigInteger, comment="The position in the log of that last event.")
