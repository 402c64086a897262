"""Constraints of the tables refuse rows that no event can produce."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy import URL

from ledger.database import Database
from tests.log.helpers import connected

COMMON = {"id": "gen_random_uuid()", "created_at": "now()", "updated_at": "now()", "position": "1", "currency": "'USD'"}
BY = {"actor": "'local'"}
GOOD = {
    "campaigns": COMMON | {"name": "'C'", "budget": "1", "start_date": "now()"},
    "agent_jobs": COMMON | BY | {"agent_type": "'analyst'", "input_data": "'{}'", "root_job_id": "gen_random_uuid()"},
    "budget_entries": COMMON | BY | {"resource_type": "'media'", "status": "'settled'", "occurred_at": "now()"},
    "content_assets": {column: COMMON[column] for column in COMMON if column != "currency"}
    | {"title": "'T'", "content": "''", "content_type": "'blog'"},
}

HELD = {"status": "'held'", "held": "5", "expires_at": "now()"}

REFUSED = [
    ("campaigns", {"held": "-0.000000000000000001"}, "held"),
    ("campaigns", {"budget": "-1"}, "budget"),
    ("campaigns", {"status": "'deleted'"}, "status"),
    ("campaigns", {"status": "'ACTIVE'"}, "status"),
    ("agent_jobs", {"held": "-1"}, "held"),
    ("agent_jobs", {"tokens_used": "-1"}, "tokens_used"),
    ("agent_jobs", {"progress": "1.01"}, "progress"),
    ("agent_jobs", {"status": "'paused'"}, "status"),
    ("agent_jobs", {"agent_type": "'Poet'"}, "agent_type"),
    ("content_assets", {"status": "''"}, "status"),
    ("content_assets", {"content_type": "'a poem'"}, "content_type"),
    ("budget_entries", {"status": "'denied'"}, "status"),
    ("budget_entries", {"resource_type": "E'paper\\n'"}, "resource_type"),
    ("budget_entries", {"tokens_used": "-1"}, "tokens_used"),
    ("budget_entries", HELD | {"held": "-5"}, "held"),
    ("budget_entries", HELD | {"cost": "1"}, "held"),
    ("budget_entries", HELD | {"status": "'settled'", "cost": "1"}, "held"),
    ("budget_entries", HELD | {"status": "'expired'"}, "held"),
    ("budget_entries", HELD | {"expires_at": "NULL"}, "expires_at"),
]


@pytest.fixture
async def connection(database: Database, database_url: URL) -> AsyncIterator[Any]:
    async with connected(database_url) as connection:
        yield connection


def insert(table: str, columns: dict[str, str]) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(columns.values())})"


async def test_impossible_rows_are_refused_and_the_error_names_the_column(connection: Any) -> None:
    for table, row in GOOD.items():
        await connection.execute(insert(table, row))
    for possible in (HELD, HELD | {"held": "0"}, {"cost": "-1", "resource_type": "'gpu.time-2_b'"}):
        await connection.execute(insert("budget_entries", GOOD["budget_entries"] | possible))

    named = []
    for table, wrong, _ in REFUSED:
        with pytest.raises(asyncpg.CheckViolationError) as refusal:
            await connection.execute(insert(table, GOOD[table] | wrong))
        named.append((table, wrong, refusal.value.constraint_name))

    assert named == [(table, wrong, f"{table}_{column}_check") for table, wrong, column in REFUSED]


async def test_required_columns_may_not_be_null(connection: Any) -> None:
    required = [(table, column) for table, row in GOOD.items() for column in row if column != "budget"]

    named = []
    for table, column in required:
        with pytest.raises(asyncpg.NotNullViolationError) as refusal:
            await connection.execute(insert(table, GOOD[table] | {column: "NULL"}))
        named.append((refusal.value.table_name, refusal.value.column_name))

    assert named == required


async def test_referenced_jobs_and_campaigns_must_exist(connection: Any) -> None:
    for table, column in [
        ("budget_entries", "agent_job_id"),
        ("content_assets", "agent_job_id"),
        ("content_assets", "campaign_id"),
        ("agent_jobs", "campaign_id"),
        ("agent_jobs", "parent_job_id"),
        ("budget_entries", "campaign_id"),
    ]:
        with pytest.raises(asyncpg.ForeignKeyViolationError) as refusal:
            await connection.execute(insert(table, GOOD[table] | {column: "gen_random_uuid()"}))

        assert refusal.value.constraint_name == f"{table}_{column}_fkey"


async def test_an_entry_outlives_its_campaign(connection: Any) -> None:
    campaign_id = await connection.fetchval(insert("campaigns", GOOD["campaigns"]) + " RETURNING id")
    await connection.execute(insert("budget_entries", GOOD["budget_entries"] | {"campaign_id": f"'{campaign_id}'"}))

    await connection.execute("DELETE FROM campaigns")

    assert await connection.fetchval("SELECT count(*) FROM budget_entries WHERE campaign_id IS NULL") == 1
