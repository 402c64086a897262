"""SQL of the collections: filters, sort order, keyset pagination, rows as JSON, for any read model.

Names and operators become text, values become parameters. The statements are written by hand: SQLAlchemy takes
milliseconds to build one, and clients choose too many combinations of filters, sort and limit to rely on a cache. It
also casts a parameter to `varchar(n)` like the column, which would truncate a filter's value.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

import msgspec

from projections.tables import CAMPAIGNS, Kind, ReadModel

_TIME = """to_char(t.{column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS {column}"""

Parameter = Callable[[Any], str]
"""Adds a value to a statement's arguments and returns its parameter, such as `$2`."""


DERIVED = {
    (
        CAMPAIGNS,
        "budget_used_percentage",
    ): "CASE WHEN t.budget = 0 THEN 0 ELSE greatest(t.spend, 0) * 100 / t.budget END"
}
"""SQL of the figures that are no columns, and that rows can be sorted by; they may be null."""


class Filter(NamedTuple):
    """A condition on a column; with `in`, the value is a list, and any of its items matches.

    With `label`, the value is a key and a list of values, any of which matches; with `is`, it is true or false.
    """

    column: str
    operator: Literal["in", "is", ">=", "<", "label"]
    value: Any


class SortKey(NamedTuple):
    """A column to sort by; nulls are last in either direction."""

    column: str
    is_descending: bool = False


@cache
def row_as_json(model: ReadModel[Any], columns: tuple[str, ...]) -> str:
    """Return SQL for one JSON object of a row with the alias `t`: money in plain notation and times in UTC, as text.

    PostgreSQL writes this JSON in a fraction of the time it takes to read the values into Python and encode them.
    """
    selected = ", ".join(_as_shown(model, column) for column in columns)
    return f"(SELECT row_to_json(selected)::text FROM (SELECT {selected}) AS selected)"  # noqa: S608 (fixed names)


def _as_shown(model: ReadModel[Any], column: str) -> str:
    if model.kinds[column] == "money":
        return f"trim_scale(t.{column})::text AS {column}"
    return _TIME.format(column=column) if model.kinds[column] == "time" else f"t.{column}"


@cache
def size(model: ReadModel[Any], columns: tuple[str, ...]) -> str:
    """Return SQL for the bytes in those of a row's large columns that are selected: they bound a page of rows."""
    large = (column for column in model.large_columns if column in columns)
    sizes = (f"coalesce(octet_length(t.{column}::text), 0)" for column in large)
    return " + ".join(sizes) or "0"


def condition(model: ReadModel[Any], filter_: Filter, parameter: Parameter) -> str:
    """Return the SQL condition of a filter.

    Args:
        model: the read model.
        filter_: the filter.
        parameter: adds a value to the arguments.

    Returns:
        SQL over the alias `t`.
    """
    if filter_.operator == "label":
        key, values = filter_.value
        either = (f"t.labels @> {parameter(msgspec.json.encode({key: each}).decode())}::jsonb" for each in values)
        return f"({' OR '.join(either)})"
    if filter_.operator == "is":
        # No parameter: a partial index must be known to fit.
        return f"t.{filter_.column}" if filter_.value else f"NOT t.{filter_.column}"
    value = parameter(filter_.value)
    if filter_.operator == "in":
        element = "uuid" if model.kinds[filter_.column] == "id" else "text"
        return f"t.{filter_.column} = ANY ({value}::{element}[])"
    return f"t.{filter_.column} {filter_.operator} {value}"


def value_of(model: ReadModel[Any], column: str) -> str:
    """Return SQL for what a row is sorted by: a column of the alias `t`, or a derived figure."""
    return DERIVED.get((model, column), f"t.{column}")


def kind_of(model: ReadModel[Any], column: str) -> Kind:
    """Return the kind of what a row is sorted by."""
    return "money" if (model, column) in DERIVED else model.kinds[column]


def is_nullable(model: ReadModel[Any], column: str) -> bool:
    """Whether what a row is sorted by may be null."""
    return (model, column) in DERIVED or model.is_nullable(column)


def order(model: ReadModel[Any], sort: Sequence[SortKey]) -> str:
    """Return the list for ORDER BY."""
    return ", ".join(_ordered(model, column, is_descending) for column, is_descending in sort)


def _ordered(model: ReadModel[Any], column: str, is_descending: bool) -> str:
    # NULLS LAST only for columns that have nulls: without it, the plain indexes serve.
    last = " NULLS LAST" if is_nullable(model, column) else ""
    return f"{value_of(model, column)}{' DESC' if is_descending else ''}{last}"


def after(model: ReadModel[Any], sort: Sequence[SortKey], values: Sequence[Any], parameter: Parameter) -> str:
    """Return the SQL condition for the rows that follow a row in this order (keyset pagination).

    Args:
        model: the read model.
        sort: the order; its last column is unique.
        values: of the row, one for each sort key; None for null.
        parameter: adds a value to the arguments.

    Returns:
        SQL over the alias `t`.
    """
    parameters = [None if value is None else parameter(value) for value in values]
    branches = []
    for index, key in enumerate(sort):
        follows = _follows(model, key, parameters[index])
        if follows is not None:
            same = [_is_same(model, sort[before], parameters[before]) for before in range(index)]
            branches.append(f"({' AND '.join([*same, follows])})")
    either = f"({' OR '.join(branches)})"
    first = sort[0]
    if parameters[0] is None or is_nullable(model, first.column):
        return either
    # Implied by the branches, but only with it the index on the first key is entered at the right place.
    return f"t.{first.column} {'<=' if first.is_descending else '>='} {parameters[0]} AND {either}"


def _is_same(model: ReadModel[Any], key: SortKey, parameter: str | None) -> str:
    value = value_of(model, key.column)
    return f"{value} IS NULL" if parameter is None else f"{value} = {parameter}"


def _follows(model: ReadModel[Any], key: SortKey, parameter: str | None) -> str | None:
    if parameter is None:
        return None
    value = value_of(model, key.column)
    follows = f"{value} {'<' if key.is_descending else '>'} {parameter}"
    return f"({follows} OR {value} IS NULL)" if is_nullable(model, key.column) else follows
