"""Loading and writing the rows of a page set-wise: a handful of statements whatever the page's size."""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from uuid import UUID

import msgspec
from sqlalchemy import JSON, BigInteger, DateTime, Integer, Numeric, Uuid
from sqlalchemy.types import TypeEngine

from ledger.database import Connection
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
)

if TYPE_CHECKING:
    pass

R = TypeVar("R", bound=Row)

TABLES: tuple[tuple[str, type[Row]], ...] = (
    ("campaigns", CampaignRow),
    ("agent_jobs", AgentJobRow),
    ("content_assets", ContentAssetRow),
    ("budget_entries", BudgetEntryRow),
)
"""Referenced tables first."""


class Statements(NamedTuple):
    """The SQL of one table in one schema."""

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
    """Build the SQL of a table from its row and its model.

    Rows are sent as one JSON text: arrays, one a column, take the driver three times as long to write.
    """
    types = {column.name: column.type for column in Base.metadata.tables[table].columns}
    columns = columns_of(row)
    kept = KEPT.get(table, ())
    loaded = ", ".join("NULL" if column in kept else column for column in columns)
    sent = ", ".join(f"{column} {_type_sent(types[column])}" for column in columns)
    # JSON is sent as text, which keeps it as it is to the last blank.
    values = ", ".join(
        f"new.{column}::json" if isinstance(types[column], JSON) else f"new.{column}" for column in columns
    )
    rows = f"(SELECT {values} FROM json_to_recordset($1::json) AS new ({sent}))"  # noqa: S608 (names of our own)
    name = f"{schema}.{table}"

    def update(kept: Sequence[str]) -> str:
        changes = ", ".join(
            f"{column} = coalesce(new.{column}, old.{column})" if column in kept else f"{column} = new.{column}"
            for column in columns
            if column not in ("id", "created_at")
        )
        return f"UPDATE {name} AS old SET {changes} FROM {rows} AS new WHERE old.id = new.id"  # noqa: S608

    return Statements(
        columns,
        f"SELECT {loaded} FROM {name} WHERE id = ANY ($1)",  # noqa: S608
        f"INSERT INTO {name} ({', '.join(columns)}) {rows}",
        update(kept),
        update(()),
        f"DELETE FROM {name} WHERE id = ANY ($1)",  # noqa: S608
    )


def _type_sent(column: TypeEngine[Any]) -> str:
    for kind, name in (
        (Uuid, "uuid"),
        (DateTime, "timestamptz"),
        (BigInteger, "bigint"),
        (Integer, "integer"),
        (Numeric, "numeric"),
    ):
        if isinstance(column, kind):
            return name
    return "text"


async def load(connection: Connection, needed: Needed, schema: str = "public") -> ReadModels:
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


def take_new(models: ReadModels) -> list[bytes]:
    """What must be inserted into each table, as JSON; the models count it as loaded from here on."""
    return [_json(getattr(models, table).take_new()) for table, _ in TABLES]


async def insert(connection: Connection, new: Sequence[bytes], schema: str = "public") -> None:
    """Insert new rows, referenced ones first."""
    for (table, row), rows in zip(TABLES, new, strict=True):
        await _send(connection, statements(schema, table, row).insert, rows)


async def change(connection: Connection, models: ReadModels, schema: str = "public") -> None:
    """Write what changed of rows that were there; deletions last, when nothing points there any more."""
    for table, row in TABLES:
        sql, rows = statements(schema, table, row), getattr(models, table)
        await _send(connection, sql.update, _json(rows.changed))
        await _send(connection, sql.retell, _json(rows.retold))
    for table, row in reversed(TABLES):
        if deleted := getattr(models, table).deleted:
            await connection.execute(statements(schema, table, row).delete, deleted)


def _json(rows: list[R]) -> bytes:
    """Rows as JSON, at once: they may go on changing before it is sent."""
    return msgspec.json.encode(rows) if rows else b""


async def _send(connection: Connection, statement: str, rows: bytes) -> None:
    if rows:
        await connection.execute(statement, rows.decode())
