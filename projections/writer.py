"""Loading and writing the rows of a page set-wise: a handful of statements whatever the page's size."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from ledger.database import Connection
from projections.fold import ReadModels
from projections.rows import Row, Rows
from projections.tables import READ_MODELS, REFERENCED_FIRST, R, ReadModel

SENT_AS = {
    "id": "uuid",
    "time": "timestamptz",
    "integer": "bigint",
    "money": "numeric",
    # JSON is sent as text, which preserves it to the last blank.
    "json": "text",
    "text": "text",
}
"""The SQL types in which the values of a row are sent, by the kind of their column."""


class Statements(NamedTuple):
    """The SQL of one table in one schema."""

    columns: tuple[str, ...]
    select: str
    insert: str
    update: str
    retell: str
    delete: str


@cache
def statements(schema: str, model: ReadModel[Any]) -> Statements:
    """Return the SQL that loads and writes the rows of a read model in a schema.

    Rows are sent as one JSON text: arrays, one for each column, take the driver three times as long to write.
    """
    columns = model.columns
    loaded = ", ".join("NULL" if column in model.large_columns else column for column in columns)
    sent = ", ".join(f"{column} {SENT_AS[model.kinds[column]]}" for column in columns)
    values = ", ".join(f"new.{column}::json" if column in model.json_columns else f"new.{column}" for column in columns)
    rows = f"(SELECT {values} FROM json_to_recordset($1::json) AS new ({sent}))"  # noqa: S608 (fixed names)
    name = f"{schema}.{model.name}"

    def update(kept: Sequence[str] = ()) -> str:
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
        update(kept=model.large_columns),
        update(),
        f"DELETE FROM {name} WHERE id = ANY ($1)",  # noqa: S608
    )


async def load(connection: Connection, needed: Mapping[str, list[UUID]], schema: str = "public") -> ReadModels:
    """Load the rows that a page needs.

    Args:
        connection: inside the transaction that will write them.
        needed: ids by table.
        schema: of the tables.

    Returns:
        the rows; large columns are left out.
    """
    return ReadModels(
        **{model.name: await _load(connection, model, needed[model.name], schema) for model in READ_MODELS}
    )


async def _load(connection: Connection, model: ReadModel[R], ids: list[UUID], schema: str) -> Rows[R]:
    if not ids:
        return Rows()
    sql = statements(schema, model)
    records = await connection.fetch(sql.select, ids)
    return Rows(model.row(**dict(zip(sql.columns, record, strict=True))) for record in records)


def take_new(models: ReadModels) -> list[bytes]:
    """What must be inserted into each table, as JSON; the models count it as loaded from here on."""
    return [_json(models.of(model).take_new()) for model in REFERENCED_FIRST]


async def insert(connection: Connection, new: Sequence[bytes], schema: str = "public") -> None:
    """Insert new rows, referenced ones first."""
    for model, rows in zip(REFERENCED_FIRST, new, strict=True):
        await _send(connection, statements(schema, model).insert, rows)


async def change(connection: Connection, models: ReadModels, schema: str = "public") -> None:
    """Write what changed of rows that were there; deletions last, when nothing points there any more."""
    for model in REFERENCED_FIRST:
        sql, rows = statements(schema, model), models.of(model)
        await _send(connection, sql.update, _json(rows.changed))
        await _send(connection, sql.retell, _json(rows.retold))
    for model in reversed(REFERENCED_FIRST):
        if deleted := models.of(model).deleted:
            await connection.execute(statements(schema, model).delete, deleted)


def _json(rows: Sequence[Row]) -> bytes:
    """Rows as JSON, at once: they may go on changing before it is sent."""
    return msgspec.json.encode(rows) if rows else b""


async def _send(connection: Connection, statement: str, rows: bytes) -> None:
    if rows:
        await connection.execute(statement, rows.decode())
