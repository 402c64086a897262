"""Compare the live tables with a replay: cell by cell to show, or as ids of rows to correct."""

from collections.abc import AsyncIterator, Iterable
from functools import cache
from typing import Any

import msgspec

from ledger.database import Connection
from projections.replay import TEMPORARY
from projections.tables import REFERENCED_FIRST, ReadModel

PREFETCHED_ROWS = 500


class Difference(msgspec.Struct):
    """A cell whose live value differs from the replayed one. Column `row`: the whole row is missing on one side."""

    table: str
    id: str
    column: str
    live: str | None
    replayed: str | None


def comparable(model: ReadModel[Any], row: str, column: str) -> str:
    """Return SQL for a column's value that can be compared: `json` has no equality, but its text does.

    Args:
        model: the read model.
        row: SQL for the row, such as an alias.
        column: of the read model.

    Returns:
        an SQL expression.
    """
    return f"{row}.{column}::text" if column in model.json_columns else f"{row}.{column}"


@cache
def _pairs(model: ReadModel[Any]) -> str:
    """Return SQL for the rows of a table that differ: a composite value `live`, and one `replayed`."""
    live, replayed = (
        ", ".join(comparable(model, side, column) for column in model.columns) for side in ("live", "replayed")
    )
    return f"""
        SELECT live, replayed FROM public.{model.name} AS live
        FULL JOIN {TEMPORARY}.{model.name} AS replayed ON replayed.id = live.id
        WHERE live.id IS NULL OR replayed.id IS NULL OR ({live}) IS DISTINCT FROM ({replayed})
    """  # noqa: S608 (fixed names)


@cache
def _cells(model: ReadModel[Any]) -> str:
    """Return SQL for every cell that differs, and once `row` for a row that only one side has."""
    cells = [
        "('row', CASE WHEN (pair.live).id IS NULL THEN 'missing' ELSE 'present' END,"
        " CASE WHEN (pair.replayed).id IS NULL THEN 'missing' ELSE 'present' END,"
        " (pair.live).id IS NULL OR (pair.replayed).id IS NULL)"
    ]
    for column in model.columns:
        live, replayed = (comparable(model, side, column) for side in ("(pair.live)", "(pair.replayed)"))
        cells.append(
            f"('{column}', (pair.live).{column}::text, (pair.replayed).{column}::text, {live} IS DISTINCT FROM "
            f"{replayed} AND (pair.live).id IS NOT NULL AND (pair.replayed).id IS NOT NULL)"
        )
    return f"""
        SELECT coalesce((pair.live).id, (pair.replayed).id)::text AS id, cell.name, cell.live, cell.replayed
        FROM ({_pairs(model)}) AS pair, LATERAL (VALUES {", ".join(cells)}) AS cell (name, live, replayed, differs)
        WHERE cell.differs
    """  # noqa: S608


async def compare_read_models(connection: Connection) -> AsyncIterator[Difference]:
    """Yield every difference between the read models and a temporary replay, inside the caller's snapshot."""
    for model in REFERENCED_FIRST:
        async for difference in read_differences(connection, model.name, _cells(model)):
            yield difference


async def read_differences(connection: Connection, table: str, query: str) -> AsyncIterator[Difference]:
    """Yield the rows of a query as differences.

    Args:
        connection: inside a transaction.
        table: in which the differences are.
        query: selects `id`, `name` (of the column), `live` and `replayed`.

    Yields:
        one difference for each row.
    """
    async for row in connection.cursor(query, prefetch=PREFETCHED_ROWS):
        yield Difference(table, row["id"], row["name"], row["live"], row["replayed"])


async def collect_differing_ids(connection: Connection, models: Iterable[ReadModel[Any]]) -> None:
    """Store the ids of rows that differ in a temporary table `differing (table_name, id)`."""
    await connection.execute(
        "CREATE TEMPORARY TABLE differing (table_name text, id uuid, PRIMARY KEY (table_name, id))"
    )
    for model in models:
        await connection.execute(
            f"INSERT INTO {TEMPORARY}.differing SELECT '{model.name}', coalesce((pair.live).id, (pair.replayed).id) "  # noqa: S608
            f"FROM ({_pairs(model)}) AS pair"
        )
