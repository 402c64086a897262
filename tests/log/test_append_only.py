"""Triggers make the log append-only: of all changes only an erasure passes, on every partition."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy import URL

from ledger.database import Connection
from ledger.log.tables import EVENT_COLUMNS, PARTITIONS
from tests.log.helpers import connected

CATEGORIES = [partition.removesuffix("_events") for partition in PARTITIONS]

INSERT = """
INSERT INTO ledger.events
SELECT 1, $1, gen_random_uuid(), 1, gen_random_uuid(), 'campaign.created', 1, now(), now(), 'local', NULL, NULL, NULL,
    NULL, '{"budget":"1"}', '{"name":"A name"}', decode(repeat('00', 16), 'hex'), repeat('0', 64), NULL, 12
"""

ERASE = "UPDATE ledger.{table} SET text = NULL, text_salt = NULL"

# A change of each column except the two that an erasure sets; NULLs become values, values become NULL if allowed.
OTHER_CHANGES = {
    "position": "2",
    "category": "'content'",
    "stream_id": "gen_random_uuid()",
    "version": "2",
    "id": "gen_random_uuid()",
    "type": "'campaign.deleted'",
    "schema_version": "2",
    "occurred_at": "occurred_at + interval '1 microsecond'",
    "recorded_at": "recorded_at + interval '1 microsecond'",
    "actor": "'somebody'",
    "campaign_id": "gen_random_uuid()",
    "agent_job_id": "gen_random_uuid()",
    "correlation_id": "gen_random_uuid()",
    "causation_id": "gen_random_uuid()",
    "data": """'{"budget": "1"}'""",
    "text_commitment": "NULL",
    "over_budget": "'{job}'",
    "size": "0",
}


@pytest.fixture
async def connection(shared_database_url: URL) -> AsyncIterator[Connection]:
    """A connection to a log with one event in each category, all with free text; rolled back after the test."""
    async with connected(shared_database_url) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.executemany(INSERT, [(category,) for category in CATEGORIES])
        yield connection
        await transaction.rollback()


async def assert_refused(connection: Connection, statement: str) -> None:
    before = await connection.fetch("SELECT events::text FROM ledger.events ORDER BY category")

    with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
        async with connection.transaction():
            await connection.execute(statement)

    assert await connection.fetch("SELECT events::text FROM ledger.events ORDER BY category") == before
    assert len(before) == len(CATEGORIES)


@pytest.mark.parametrize("table", ["events", *PARTITIONS])
@pytest.mark.parametrize(
    "statement", ["UPDATE ledger.{} SET actor = 'somebody'", "DELETE FROM ledger.{}", "TRUNCATE ledger.{}"]
)
async def test_update_delete_and_truncate_are_refused_on_the_parent_and_on_every_partition(
    connection: Connection, table: str, statement: str
) -> None:
    await assert_refused(connection, statement.format(table))


async def test_an_upsert_and_a_merge_are_refused_too(connection: Connection) -> None:
    await assert_refused(
        connection,
        "INSERT INTO ledger.events SELECT * FROM ledger.events "
        "ON CONFLICT (stream_id, version, category) DO UPDATE SET actor = 'somebody'",
    )
    await assert_refused(
        connection,
        "MERGE INTO ledger.events AS old USING ledger.events AS new ON old.id = new.id WHEN MATCHED THEN DELETE",
    )


@pytest.mark.parametrize("table", ["events", *PARTITIONS])
async def test_the_erasure_of_text_and_salt_passes(connection: Connection, table: str) -> None:
    others = ", ".join(column for column in EVENT_COLUMNS if column not in ("text", "text_salt"))
    other_columns = f"SELECT ROW({others})::text FROM ledger.events ORDER BY category"
    before = await connection.fetch(other_columns)

    erased = await connection.execute(ERASE.format(table=table))

    assert erased == f"UPDATE {len(PARTITIONS) if table == 'events' else 1}"
    remaining = f"SELECT count(*) FROM ledger.{table} WHERE text IS NOT NULL OR text_salt IS NOT NULL"
    assert (await connection.fetchval(remaining), await connection.fetch(other_columns)) == (0, before)


async def test_these_tests_cover_every_column() -> None:
    assert set(OTHER_CHANGES) == set(EVENT_COLUMNS) - {"text", "text_salt"}


@pytest.mark.parametrize("column", OTHER_CHANGES)
async def test_an_erasure_that_changes_anything_else_is_refused(connection: Connection, column: str) -> None:
    change = f"{column} = {OTHER_CHANGES[column]}"

    await assert_refused(connection, f"{ERASE.format(table='events')}, {change} WHERE category = 'campaign'")


@pytest.mark.parametrize(
    "change",
    [
        """text = '{"name":"Another"}'""",
        """text = '{"name":"A name"} '""",
        "text = NULL",
        "text_salt = NULL",
        "text_salt = decode(repeat('01', 16), 'hex')",
        "text = NULL, text_salt = '\\x00'",
    ],
)
async def test_a_text_cannot_be_replaced_or_erased_without_its_salt(connection: Connection, change: str) -> None:
    await assert_refused(connection, f"UPDATE ledger.events SET {change} WHERE category = 'campaign'")


async def test_an_erased_event_cannot_be_changed(connection: Connection) -> None:
    await connection.execute(ERASE.format(table="events"))

    await assert_refused(connection, ERASE.format(table="events"))
    await assert_refused(connection, """UPDATE ledger.events SET text = '{"name":"A name"}', text_salt = '\\x00'""")
