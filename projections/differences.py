"""What the live tables hold against what a replay says: as differences to show, or as ids to mend."""

from collections.abc import AsyncIterator
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec

from ledger.database import Connection
from projections.replay import TABLES, TEMPORARY
from projections.rows import AgentJobRow, BudgetEntryRow, CampaignRow, ContentAssetRow, columns_of

if TYPE_CHECKING:
    pass

COLUMNS = {
    "campaigns": columns_of(CampaignRow),
    "agent_jobs": columns_of(AgentJobRow),
    "content_assets": columns_of(ContentAssetRow),
    "budget_entries": columns_of(BudgetEntryRow),
}

JSON_COLUMNS = ("input_data", "output_data", "metadata")
"""`json` has no equality: compared as text."""

FETCHED_MAX = 500


class Difference(msgspec.Struct):
    """A cell that is not what the log says. Column `row`: the whole row is missing on one side."""

    table: str
    id: str
    column: str
    live: str | None
    replayed: str | None


def value_of(row: str, column: str) -> str:
    """A column of a row as SQL that can be compared."""
    return f"{row}.{column}::text" if column in JSON_COLUMNS else f"{row}.{column}"


@cache
def _pairs(table: str) -> str:
    """The rows of a table that differ, both sides as composite values."""
    live, replayed = (", ".join(value_of(side, column) for column in COLUMNS[table]) for side in ("live", "replayed"))
    return f"""
        SELECT live, replayed FROM public.{table} AS live
        FULL JOIN {TEMPORARY}.{table} AS replayed ON replayed.id = live.id
        WHERE live.id IS NULL OR replayed.id IS NULL OR ({live}) IS DISTINCT FROM ({replayed})
    """  # noqa: S608 (names of our own)


@cache
def _cells(table: str) -> str:
    """Every cell that differs, and once `row` for a row that only one side has."""
    cells = [
        "('row', CASE WHEN (pair.live).id IS NULL THEN 'missing' ELSE 'present' END,"
        " CASE WHEN (pair.replayed).id IS NULL THEN 'missing' ELSE 'present' END,"
        " (pair.live).id IS NULL OR (pair.replayed).id IS NULL)"
    ]
    for column in COLUMNS[table]:
        live, replayed = value_of("(pair.live)", column), value_of("(pair.replayed)", column)
        cells.append(
            f"('{column}', (pair.live).{column}::text, (pair.replayed).{column}::text, {live} IS DISTINCT FROM "
            f"{replayed} AND (pair.live).id IS NOT NULL AND (pair.replayed).id IS NOT NULL)"
        )
    return f"""
        SELECT coalesce((pair.live).id, (pair.replayed).id)::text AS id, cell.name, cell.live, cell.replayed
        FROM ({_pairs(table)}) AS pair, LATERAL (VALUES {", ".join(cells)}) AS cell (name, live, replayed, differs)
        WHERE cell.differs
    """  # noqa: S608


async def compare_read_models(connection: Connection) -> AsyncIterator[Difference]:
    """Every difference between the read models and a temporary replay, inside the caller's snapshot."""
    for table in TABLES:
        async for difference in read_differences(connection, table, _cells(table)):
            yield difference


async def read_differences(connection: Connection, table: str, query: str) -> AsyncIterator[Difference]:
    """The rows (id, name, live, replayed) of a query as differences of a table."""
    async for row in connection.cursor(query, prefetch=FETCHED_MAX):
        yield Difference(table, row["id"], row["name"], row["live"], row["replayed"])


async def note_differing(connection: Connection, tables: Any) -> None:
    """Keep the ids of rows that differ in a temporary table `differing (table_name, id)`."""
    await connection.execute(
        "CREATE TEMPORARY TABLE differing (table_name text, id uuid, PRIMARY KEY (table_name, id))"
    )
    for table in tables:
        await connection.execute(
            f"INSERT INTO {TEMPORARY}.differing SELECT '{table}', coalesce((pair.live).id, (pair.replayed).id) "  # noqa: S608
            f"FROM ({_pairs(table)}) AS pair"
        )
