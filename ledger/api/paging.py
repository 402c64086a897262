"""Sort orders and cursors of the collections, as query parameters spell them."""

import base64
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import msgspec

from ledger.api.min_position import MinPositionQuery
from ledger.domain.codec import Instant, utc
from ledger.domain.errors import Malformed
from projections.collection_sql import SortKey
from projections.tables import Kind, ReadModel

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


CURSOR_TYPES: dict[Kind, Any] = {"id": UUID, "time": Instant, "money": Decimal, "text": str}
"""The types of a cursor's values, by the kind of their column."""


def read_sort(sort: str, sortable: Sequence[str]) -> list[SortKey]:
    """Read the order asked for; `id` is the last key always, so that every order is total.

    Raises:
        Malformed: it names a column that cannot be sorted by, or one twice.
    """
    keys: list[SortKey] = []
    for part in [*sort.split(","), "id"]:
        name = part.removeprefix("-")
        if name not in sortable:
            raise Malformed(f"cannot sort by {name!r}; possible: {', '.join(sortable)}")
        if any(key.column == name for key in keys):
            if part == "id" and len(keys) == len(sort.split(",")):
                continue
            raise Malformed(f"{name!r} stands twice in sort")
        keys.append(SortKey(name, part.startswith("-")))
    return keys


def write_cursor(model: ReadModel[Any], sort: str, keys: list[SortKey], row: str) -> str:
    """The cursor of the rows after this one, given as JSON."""
    # The rest of it stays unread: people's JSON may hold numbers that ours cannot.
    fields = msgspec.json.decode(row, type=dict[str, msgspec.Raw])
    values = [fields[key.column] for key in keys]
    return base64.urlsafe_b64encode(msgspec.json.encode([model.name, sort, values])).decode().rstrip("=")


def read_cursor(cursor: str, model: ReadModel[Any], sort: str, keys: list[SortKey]) -> list[Any]:
    """The values of the row that a page starts after.

    Raises:
        Malformed: it is not a cursor of this collection and this order.
    """
    try:
        padded = cursor.encode() + b"=" * (-len(cursor) % 4)
        decoded = base64.b64decode(padded, b"-_", validate=True)
        *of, values = msgspec.json.decode(decoded, type=tuple[str, str, list[Any]])
        if of != [model.name, sort] or len(values) != len(keys):
            raise ValueError
        return [_typed(model, key.column, value) for key, value in zip(keys, values, strict=True)]
    except (ValueError, RecursionError, OverflowError):
        raise Malformed("the cursor is not one of this collection and sort; start again without a cursor") from None


def _typed(model: ReadModel[Any], column: str, value: Any) -> Any:
    if value is None and model.is_nullable(column):
        return None
    typed = msgspec.convert(value, CURSOR_TYPES[model.kinds[column]])
    if isinstance(typed, str) and "\0" in typed:
        raise ValueError
    if isinstance(typed, Decimal) and (not typed.is_finite() or not -DIGITS_MAX < typed.adjusted() < DIGITS_MAX):
        raise ValueError
    if isinstance(typed, datetime):
        return utc(column, typed)
    return typed
