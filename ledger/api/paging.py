"""Pagination of collections: sort orders and keyset cursors as query parameters."""

import base64
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import msgspec

from ledger.api.min_position import MinPositionQuery
from ledger.domain.codec import utc
from ledger.domain.errors import Malformed
from ledger.domain.fields import Instant
from projections.collection_sql import SortKey, is_nullable, kind_of
from projections.tables import Kind, ReadModel

LIMIT_DEFAULT = 50
LIMIT_MAX = 500
SORT_DEFAULT = "-created_at,id"
DIGITS_MAX = 80
"""More digits than any sum or ratio in the database has."""


class PageQuery(MinPositionQuery, kw_only=True, forbid_unknown_fields=True):
    """Parameters of every collection."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=LIMIT_MAX)] = LIMIT_DEFAULT
    cursor: str | None = None
    sort: str = SORT_DEFAULT
    created_after: Instant | None = None
    created_before: Instant | None = None
    fields: tuple[str, ...] | None = None


class LabelledPageQuery(PageQuery, kw_only=True):
    """Parameters of the collections whose rows have labels; `label.KEY` is read into `labels`."""

    labels: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)


CURSOR_TYPES: dict[Kind, Any] = {"id": UUID, "time": Instant, "money": Decimal, "text": str}
"""The types of a cursor's values, by the kind of their column."""


def read_sort(sort: str, sortable: Sequence[str]) -> list[SortKey]:
    """Parse a sort order; `id` is always the last key, so that every order is total.

    Raises:
        Malformed: it names a column that cannot be sorted by, or a column twice.
    """
    keys: list[SortKey] = []
    for part in [*sort.split(","), "id"]:
        name = part.removeprefix("-")
        if name not in sortable:
            raise Malformed(f"cannot sort by {name!r}; sortable columns: {', '.join(sortable)}")
        if any(key.column == name for key in keys):
            if part == "id" and len(keys) == len(sort.split(",")):
                continue
            raise Malformed(f"sort has {name!r} twice")
        keys.append(SortKey(name, part.startswith("-")))
    return keys


def write_cursor(model: ReadModel[Any], sort: str, keys: list[SortKey], row: str, derived: str | None) -> str:
    """Write the cursor of the page after a row.

    Args:
        model: the read model.
        sort: the query parameter `sort`.
        keys: the parsed `sort`.
        row: the last row of the page, as JSON.
        derived: the row's figure that is no column, if `sort` names one.

    Returns:
        The cursor, URL-safe.
    """
    # Other columns stay undecoded: JSON objects of clients may have numbers that Python cannot represent.
    fields = msgspec.json.decode(row, type=dict[str, msgspec.Raw])
    values = [fields.get(key.column, derived) for key in keys]
    return base64.urlsafe_b64encode(msgspec.json.encode([model.name, sort, values])).decode().rstrip("=")


def read_cursor(cursor: str, model: ReadModel[Any], sort: str, keys: list[SortKey]) -> list[Any]:
    """Read the values of the row after which a page starts.

    Args:
        cursor: the query parameter `cursor`.
        model: the read model.
        sort: the query parameter `sort`.
        keys: the parsed `sort`.

    Returns:
        The values of the row, one for each key.

    Raises:
        Malformed: it is not a cursor of this collection and sort order.
    """
    try:
        padded = cursor.encode() + b"=" * (-len(cursor) % 4)
        decoded = base64.b64decode(padded, b"-_", validate=True)
        *source, values = msgspec.json.decode(decoded, type=tuple[str, str, list[Any]])
        if source != [model.name, sort] or len(values) != len(keys):
            raise ValueError
        return [_typed(model, key.column, value) for key, value in zip(keys, values, strict=True)]
    except (ValueError, RecursionError, OverflowError):
        raise Malformed("the cursor belongs to another collection or sort; start again without a cursor") from None


def _typed(model: ReadModel[Any], column: str, value: Any) -> Any:
    if value is None and is_nullable(model, column):
        return None
    typed = msgspec.convert(value, CURSOR_TYPES[kind_of(model, column)])
    if isinstance(typed, str) and "\0" in typed:
        raise ValueError
    if isinstance(typed, Decimal) and (not typed.is_finite() or not -DIGITS_MAX < typed.adjusted() < DIGITS_MAX):
        raise ValueError
    if isinstance(typed, datetime):
        return utc(column, typed)
    return typed
