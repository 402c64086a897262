"""Loading and writing the rows of a page set-wise: a handful of statements whatever the page's size."""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import JSON, BigInteger, DateTime, Integer, Numeric, Uuid
from sqlalchemy.types import TypeEngine

from projections.fold import Needed, ReadModels
from projections.models import Base
from projections.rows import (
    AgentJobRow,
    BudgetEntryRow,
    CampaignRow,
    ContentAssetRow,
    Row,
    Rows,
    columns_of,
    values_of,
)

if TYPE_CHECKING:
    import asyncpg

R = TypeVar("R", bound=Row)


class Statements(NamedTuple):
    """The SQL of one table in one schema."""

    table: str
    columns: tuple[str, ...]
    select: str
    insert: str
    update: str
    retell: str
    delete: str


# Large columns that are neither loaded nor written again unless an event brings a new value, or erases one.
KEPT = {"agent_jobs": ("input_data", "output_data"), "content_assets": ("content", "metadata")}


@cache
def statements(schema: str, table: str, row: type[Row]) -> Statements:
    """Build the SQL of a table from its row and its model."""
    types = {column.name: _array_type(column.type) for column in Base.metadata.tables[table].columns}
    columns = columns_of(row)
    kept = KEPT.get(table, ())
    loaded = ", ".join("NULL" if column in kept else column for column in columns)
    arrays = ", ".join(f"${index}::{types[column]}[]" for index, column in enumerate(columns, 1))
    name = f"{schema}.{table}"

    def update(kept: Sequence[str]) -> str:
        changes = ", ".join(
            f"{column} = coalesce(new.{column}, old.{column})" if column in kept else f"{column} = new.{column}"
            for column in columns
            if column not in ("id", "created_at")
        )
        return (
            f"UPDATE {name} AS old SET {changes} "  # noqa: S608 (names of our own)
            f"FROM unnest({arrays}) AS new ({', '.join(columns)}) WHERE old.id = new.id"
        )

    return Statements(
        table,
        columns,
        f"SELECT {loaded} FROM {name} WHERE id = ANY ($1)",  # noqa: S608
        f"INSERT INTO {name} ({', '.join(columns)}) SELECT * FROM unnest({arrays})",  # noqa: S608
        update(kept),
        update(()),
        f"DELETE FROM {name} WHERE id = ANY ($1)",  # noqa: S608
    )


def _array_type(column: TypeEngine[Any]) -> str:
    for kind, name in (
        (Uuid, "uuid"),
        (DateTime, "timestamptz"),
        (JSON, "json"),
        (BigInteger, "bigint"),
        (Integer, "integer"),
        (Numeric, "numeric"),
    ):
        if isinstance(column, kind):
            return name
    return "text"


async def load(connection: "asyncpg.Connection[asyncpg.Record]", needed: Needed, schema: str = "public") -> ReadModels:
    """Load the rows that a page needs."""

    async def rows(table: str, row: type[R], ids: list[UUID]) -> Rows[R]:
        if not ids:
            return Rows()
        sql = statements(schema, table, row)
        found = await connection.fetch(sql.select, ids)
        return Rows(row(**dict(zip(sql.columns, record, strict=True))) for record in found)

    return ReadModels(
        await rows("campaigns", CampaignRow, needed.campaigns),
        await rows("agent_jobs", AgentJobRow, needed.agent_jobs),
        await rows("content_assets", ContentAssetRow, needed.content_assets),
        await rows("budget_entries", BudgetEntryRow, needed.budget_entries),
    )


async def write(connection: "asyncpg.Connection[asyncpg.Record]", models: ReadModels, schema: str = "public") -> None:
    """Write what a page changed, referenced rows first; deletions last, when nothing new points there any more."""
    tables: Sequence[tuple[str, type[Row], Rows[Any]]] = (
        ("campaigns", CampaignRow, models.campaigns),
        ("agent_jobs", AgentJobRow, models.agent_jobs),
        ("content_assets", ContentAssetRow, models.content_assets),
        ("budget_entries", BudgetEntryRow, models.budget_entries),
    )
    for table, row, rows in tables:
        sql = statements(schema, table, row)
        if new := rows.new:
            await _add(connection, schema, sql, [values_of(row) for row in new])
        for update, changed in ((sql.update, rows.changed), (sql.retell, rows.retold)):
            if changed:
                await connection.execute(update, *zip(*(values_of(row) for row in changed), strict=True))
    for table, row, rows in reversed(tables):
        if deleted := rows.deleted:
            await connection.execute(statements(schema, table, row).delete, deleted)


async def _add(
    connection: "asyncpg.Connection[asyncpg.Record]", schema: str, sql: Statements, rows: list[tuple[Any, ...]]
) -> None:
    if schema == "public":
        # The live tables have row level security, and PostgreSQL refuses COPY to whoever it applies to.
        await connection.execute(sql.insert, *zip(*rows, strict=True))
    else:
        await connection.copy_records_to_table(sql.table, schema_name=schema, columns=sql.columns, records=rows)
