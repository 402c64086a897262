"""Filtering, sorting and keyset cursors of the collections."""

import base64
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, NamedTuple
from uuid import UUID

import msgspec

from ledger.api.min_position import MinPositionQuery
from ledger.domain.codec import Instant, utc
from ledger.domain.errors import Malformed

LIMIT_DEFAULT = 50
LIMIT_MAX = 500
SORT_DEFAULT = "-created_at,id"
DIGITS_MAX = 40
"""More digits than any sum in the database has."""


class PageQuery(MinPositionQuery, kw_only=True, forbid_unknown_fields=True):
    """What every collection takes. `sort`: comma-separated columns, `-` before one for descending, nulls last."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=LIMIT_MAX)] = LIMIT_DEFAULT
    cursor: str | None = None
    sort: str = SORT_DEFAULT
    created_after: Instant | None = None
    created_before: Instant | None = None


class Column(NamedTuple):
    """A column to sort by."""

    type: Any
    nullable: bool = False


class Key(NamedTuple):
    """One key of an order."""

    name: str
    descending: bool
    column: Column

    @property
    def sql(self) -> str:
        # Columns without nulls say nothing of nulls: so the plain indexes serve.
        return f"t.{self.name}{' DESC' if self.descending else ''}{' NULLS LAST' if self.column.nullable else ''}"


class Arguments:
    """Numbered parameters of a statement."""

    def __init__(self, first: int) -> None:
        self._first = first
        self.values: list[Any] = []

    def add(self, value: Any) -> str:
        """Take a value; the parameter that stands for it."""
        self.values.append(value)
        return f"${self._first + len(self.values) - 1}"


def read_sort(sort: str, columns: Mapping[str, Column]) -> list[Key]:
    """Read the order asked for; `id` is the last key always, so that every order is total.

    Raises:
        Malformed: it names a column that cannot be sorted by, or one twice.
    """
    keys: list[Key] = []
    for part in [*sort.split(","), "id"]:
        name = part.removeprefix("-")
        if name not in columns:
            raise Malformed(f"cannot sort by {name!r}; possible: {', '.join(columns)}")
        if any(key.name == name for key in keys):
            if part == "id" and len(keys) == len(sort.split(",")):
                continue
            raise Malformed(f"{name!r} stands twice in sort")
        keys.append(Key(name, part.startswith("-"), columns[name]))
    return keys


def write_cursor(collection: str, sort: str, keys: list[Key], row: str) -> str:
    """The cursor of the rows after this one, given as JSON."""
    # The rest of it stays unread: people's JSON may hold numbers that ours cannot.
    fields = msgspec.json.decode(row, type=dict[str, msgspec.Raw])
    values = [fields[key.name] for key in keys]
    return base64.urlsafe_b64encode(msgspec.json.encode([collection, sort, values])).decode().rstrip("=")


def read_cursor(cursor: str, collection: str, sort: str, keys: list[Key]) -> list[Any]:
    """The values of the row that a page starts after.

    Raises:
        Malformed: it is not a cursor of this collection and this order.
    """
    try:
        padded = cursor.encode() + b"=" * (-len(cursor) % 4)
        decoded = base64.b64decode(padded, b"-_", validate=True)
        *of, values = msgspec.json.decode(decoded, type=tuple[str, str, list[Any]])
        if of != [collection, sort] or len(values) != len(keys):
            raise ValueError
        return [_typed(key, value) for key, value in zip(keys, values, strict=True)]
    except (ValueError, RecursionError, OverflowError):
        raise Malformed("the cursor is not one of this collection and sort; start again without a cursor") from None


def _typed(key: Key, value: Any) -> Any:
    if value is None and key.column.nullable:
        return None
    typed = msgspec.convert(value, key.column.type)
    if isinstance(typed, str) and "\0" in typed:
        raise ValueError
    if isinstance(typed, Decimal) and (not typed.is_finite() or not -DIGITS_MAX < typed.adjusted() < DIGITS_MAX):
        raise ValueError
    if isinstance(typed, datetime):
        return utc(key.name, typed)
    return typed.value if isinstance(typed, Enum) else typed


def after(keys: list[Key], values: list[Any], arguments: Arguments) -> str:
    """The condition for the rows that come after these values in this order."""
    parameters = [arguments.add(value) if value is not None else None for value in values]
    branches = []
    for index, key in enumerate(keys):
        beyond = _beyond(key, parameters[index])
        if beyond is not None:
            same = [_same(keys[before], parameters[before]) for before in range(index)]
            branches.append("(" + " AND ".join([*same, beyond]) + ")")
    # Implied by the branches, but only so the index on the first key is entered at the right place.
    first = parameters[0]
    bound = "true"
    if first is not None and not keys[0].column.nullable:
        bound = f"t.{keys[0].name} {'<=' if keys[0].descending else '>='} {first}"
    return f"{bound} AND ({' OR '.join(branches)})"


def _same(key: Key, parameter: str | None) -> str:
    return f"t.{key.name} IS NULL" if parameter is None else f"t.{key.name} = {parameter}"


def _beyond(key: Key, parameter: str | None) -> str | None:
    if parameter is None:
        return None
    beyond = f"t.{key.name} {'<' if key.descending else '>'} {parameter}"
    return f"({beyond} OR t.{key.name} IS NULL)" if key.column.nullable else beyond


TEXT = Column(str)
TIME = Column(Instant)
ID = Column(UUID)
MONEY = Column(Decimal)
NULLABLE_TEXT = Column(str, nullable=True)
NULLABLE_ID = Column(UUID, nullable=True)
