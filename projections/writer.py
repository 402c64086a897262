"""Loads and writes the rows of a page set-wise: a handful of statements, whatever the page's size."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from ledger.database import Connection
from projections.fold import PageRows
from projections.journals import JOURNALS, JournalRows, erase_texts
from projections.rows import AgentJobRow, R, Row
from projections.tables import READ_MODELS, REFERENCED_FIRST, ReadModel

SENT_AS = {
    "id": "uuid",
    "time": "timestamptz",
    "integer": "bigint",
    "boolean": "boolean",
    "money": "numeric",
    # JSON is sent as text, which preserves it to the last space.
    "json": "text",
    "text": "text",
}
"""The SQL types in which the values of a row are sent, by the kind of their column."""


class Statements(NamedTuple):
    """The SQL of one table in one schema. `overwrite` updates every column, `update` keeps large ones that are null."""

    columns: tuple[str, ...]
    select: str
    insert: str
    update: str
    overwrite: str
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
        f"SELECT {loaded} FROM {name} WHERE {model.stream_column} = ANY ($1)",  # noqa: S608
        f"INSERT INTO {name} ({', '.join(columns)}) {rows}",
        update(kept=model.large_columns),
        update(),
        f"DELETE FROM {name} WHERE id = ANY ($1)",  # noqa: S608
    )


async def load_rows(connection: Connection, needed: Mapping[str, list[UUID]], schema: str = "public") -> PageRows:
    """Load the rows that a page needs, without their large columns.

    Args:
        connection: inside the transaction that will write the rows.
        needed: ids by table.
        schema: of the tables.

    Returns:
        the rows that exist, and the jobs above the jobs among them.
    """
    rows: dict[str, Any] = {
        model.name: model.rows_class(await _load(connection, model, needed[model.name], schema))
        for model in READ_MODELS
    }
    return PageRows(**rows, journals=JournalRows())


async def _load(connection: Connection, model: ReadModel[R], ids: Sequence[UUID], schema: str) -> list[R]:
    sql = statements(schema, model)
    loaded: dict[UUID, R] = {}
    while ids:
        records = await connection.fetch(sql.select, ids)
        rows = [model.row(**dict(zip(sql.columns, record, strict=True))) for record in records]
        loaded |= {row.id: row for row in rows}
        # A cost changes all jobs above its job too; they are loaded level by level.
        parents = {row.parent_job_id for row in rows if isinstance(row, AgentJobRow) and row.parent_job_id}
        ids = [parent_id for parent_id in parents if parent_id not in loaded]
    return list(loaded.values())


def take_inserts(rows: PageRows) -> list[bytes]:
    """Return the rows to insert into each table and journal, as JSON; from here on they count as loaded."""
    assert rows.journals is not None
    return [*(_json(rows.of(model).take_new()) for model in REFERENCED_FIRST), *rows.journals.take_new()]


async def insert_rows(connection: Connection, inserts: Sequence[bytes], schema: str = "public") -> None:
    """Insert rows into every table, in the order of `REFERENCED_FIRST`, and into every journal.

    Args:
        connection: inside a transaction.
        inserts: from `take_inserts`.
        schema: of the tables.
    """
    into_tables = (statements(schema, model).insert for model in REFERENCED_FIRST)
    into_journals = (journal.insert_statement(schema) for journal in JOURNALS)
    for statement, rows in zip((*into_tables, *into_journals), inserts, strict=True):
        await _send(connection, statement, rows)


async def write_changes(connection: Connection, rows: PageRows, schema: str = "public") -> None:
    """Update rows, erase texts, and then delete rows: by then no row refers to the deleted ones any more.

    Args:
        connection: inside a transaction.
        rows: whose new rows have been inserted.
        schema: of the tables.
    """
    for model in REFERENCED_FIRST:
        sql, changed = statements(schema, model), rows.of(model)
        await _send(connection, sql.update, _json(changed.to_update))
        await _send(connection, sql.overwrite, _json(changed.to_overwrite))
    assert rows.journals is not None
    await erase_texts(connection, rows.journals, schema)
    for model in reversed(REFERENCED_FIRST):
        if ids := rows.of(model).to_delete:
            await connection.execute(statements(schema, model).delete, ids)


def _json(rows: Sequence[Row]) -> bytes:
    """Encode rows at once: they may change before they are sent."""
    return msgspec.json.encode(rows) if rows else b""


async def _send(connection: Connection, statement: str, rows: bytes) -> None:
    if rows:
        await connection.execute(statement, rows.decode())
