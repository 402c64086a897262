"""Migrations with the command `alembic`: upgrade, downgrade, drift between database and models."""

import asyncio
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import URL

from ledger.database import Database
from ledger.database.migrations import migrate
from ledger.embedded import installed_binaries
from projections.tables import NAMES
from projections.worker import fold_page
from tests.events import campaign, cost, reserve
from tests.log.helpers import connected, query, record, until
from tests.migrations.helpers import (
    HEAD,
    REPOSITORY,
    REVISIONS,
    alembic,
    execute,
    objects,
    plain,
    revision,
    run_alembic,
)

ADVISORY_LOCK = 0x6C65646765720001
WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


@pytest.fixture
async def migrated(database_url: URL) -> list[str]:
    """The objects of a database that `ledger migrate` has migrated."""
    return await objects(database_url)


async def test_upgrade_downgrade_and_upgrade_leave_the_expected_objects(
    an_empty_database: URL, migrated: list[str]
) -> None:
    url = an_empty_database
    empty = await objects(url)

    await run_alembic(url, "upgrade", "head")
    after_upgrade = await objects(url)
    checked = await run_alembic(url, "check")
    await run_alembic(url, "downgrade", "base")
    after_downgrade = await objects(url)
    await run_alembic(url, "upgrade", "head")

    assert (empty, after_upgrade) == ([], migrated)
    assert "No new upgrade operations detected" in checked
    assert after_downgrade == ["i public.alembic_version_pkc", "r public.alembic_version"]
    assert (await objects(url), await revision(url)) == (migrated, HEAD)
    assert {"r public.campaigns", "p ledger.events", "r ledger.cost_events", "function ledger.lock_and_load"} <= set(
        migrated
    )


async def test_the_generated_sql_script_has_the_same_effect(an_empty_database: URL, migrated: list[str]) -> None:
    script = await run_alembic(an_empty_database, "upgrade", "head", "--sql")
    psql = [shutil.which("psql") or str(installed_binaries() / "psql"), "-XqvON_ERROR_STOP=1", plain(an_empty_database)]

    psql_result = subprocess.run(psql, input=script, capture_output=True, text=True)

    # A user that may not create roles, or may not transfer its tables, gets warnings; these users are not superusers.
    expected_warnings = ("so these are left out", "may not hand everything over")
    complaints = [
        line for line in psql_result.stderr.splitlines() if not any(words in line for words in expected_warnings)
    ]
    assert (psql_result.returncode, complaints) == (0, [])
    assert await objects(an_empty_database) == migrated
    assert await revision(an_empty_database) == HEAD
    assert "No new upgrade operations detected" in await run_alembic(an_empty_database, "check")


async def test_a_migrated_database_records_events_and_folds_them(an_empty_database: URL) -> None:
    database, opened = Database(an_empty_database), campaign("10")
    await migrate(database)

    await record(database, opened, cost("3", campaign_id=opened["id"]), reserve("2", campaign_id=opened["id"]))
    await fold_page(database)

    assert await query(database, "SELECT spend, held FROM campaigns") == [(3, 2)]
    await database.close()


async def test_the_history_and_the_current_revision_are_printed(database_url: URL, empty_database_url: URL) -> None:
    history = await run_alembic(database_url, "history")

    *earlier, latest = [f"{before} -> {after}" for before, after in pairwise(["<base>", *REVISIONS])]
    assert [line.split(",")[0] for line in history.splitlines()] == [f"{latest} (head)", *reversed(earlier)]
    assert await run_alembic(database_url, "current") == f"{HEAD} (head)\n"
    assert await run_alembic(empty_database_url, "current") == ""


async def test_the_migrations_create_the_tables_of_the_models(database_url: URL) -> None:
    checked = await alembic(database_url, "check")

    assert checked.code == 0, f"add a migration to alembic/versions for these changes of the models: {checked.out}"


WITHOUT_COMMENT = """
SELECT format('%s.%s', attrelid::regclass, attname) FROM pg_attribute
WHERE attrelid = ANY ($1::regclass[]) AND attnum > 0 AND NOT attisdropped AND col_description(attrelid, attnum) IS NULL
UNION ALL
SELECT class::text FROM unnest($1::regclass[]) AS class WHERE obj_description(class, 'pg_class') IS NULL
"""


async def test_every_read_model_and_each_of_its_columns_has_a_comment(database: Database) -> None:
    assert await query(database, WITHOUT_COMMENT, list(NAMES)) == []


# Drifts, and how the check names each.
DRIFTS = {
    "ALTER TABLE campaigns DROP COLUMN revenue": "'add_column', None, 'campaigns', Column('revenue'",
    "ALTER TABLE campaigns ADD COLUMN colour text": "'remove_column', None, 'campaigns', Column('colour'",
    "ALTER TABLE campaigns ALTER COLUMN currency DROP NOT NULL": "'modify_nullable', None, 'campaigns', 'currency'",
    "ALTER TABLE campaigns ALTER COLUMN clicks TYPE integer": "'modify_type', None, 'campaigns', 'clicks'",
    "ALTER TABLE campaigns ALTER COLUMN clicks DROP DEFAULT": "'modify_default', None, 'campaigns', 'clicks'",
    "CREATE INDEX stray ON agent_jobs (retry_count)": "'remove_index', Index('stray'",
    "DROP INDEX ledger.holds_expires_at_idx": "'add_index', Index('holds_expires_at_idx'",
    "ALTER TABLE ledger.accounts DROP COLUMN held": "'add_column', 'ledger', 'accounts', Column('held'",
    "ALTER TABLE ledger.events DROP CONSTRAINT events_stream_id_id_category_key": "'add_constraint', UniqueConstraint(",
    "ALTER TABLE content_assets DROP CONSTRAINT content_assets_campaign_id_fkey": "'add_fk', ForeignKeyConstraint(",
    "CREATE TABLE ledger.strange (id int)": "'remove_table', Table('strange'",
}


@pytest.mark.parametrize("drifts", [["CREATE INDEX stray ON agent_jobs (retry_count)"], list(DRIFTS)])
async def test_a_drift_between_database_and_models_is_detected(database_url: URL, drifts: list[str]) -> None:
    await execute(database_url, ";".join(drifts))

    result = await alembic(database_url, "check")

    assert result.code != 0
    assert "New upgrade operations detected" in result.out
    assert [drift for drift in drifts if DRIFTS[drift] not in result.out] == []


async def test_tables_of_other_applications_are_no_drift(database_url: URL) -> None:
    await execute(
        database_url, "CREATE TABLE public.of_others (id int); CREATE SCHEMA auth; CREATE TABLE auth.users ()"
    )

    assert "No new upgrade operations detected" in await run_alembic(database_url, "check")


async def test_autogenerate_writes_an_empty_revision(database_url: URL, tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "alembic.ini", tmp_path)
    shutil.copytree(REPOSITORY / "alembic", tmp_path / "alembic", ignore=shutil.ignore_patterns("__pycache__"))

    result = await alembic(
        database_url,
        "revision",
        "--autogenerate",
        "-m",
        "nothing",
        "--rev-id",
        "next",
        configuration=tmp_path / "alembic.ini",
    )

    assert result.code == 0, result.err
    revision_text = (tmp_path / "alembic" / "versions" / "next_nothing.py").read_text()
    assert revision_text.count("    pass\n") == 2
    assert "op." not in revision_text.replace("from alembic import op", "")
    assert f'down_revision = "{HEAD}"' in revision_text.replace("'", '"')


async def test_concurrent_migrations_wait_for_each_other(empty_database_url: URL) -> None:
    async with connected(empty_database_url) as holder:
        await holder.execute("SELECT pg_advisory_lock($1)", ADVISORY_LOCK)
        both = [asyncio.create_task(alembic(empty_database_url, "upgrade", "head")) for _ in range(2)]

        async def both_wait() -> bool:
            return bool(await holder.fetchval(WAITING) == 2)

        await until(both_wait)
        assert await holder.fetchval("SELECT to_regclass('ledger.events')") is None
        await holder.execute("SELECT pg_advisory_unlock($1)", ADVISORY_LOCK)
        results = await asyncio.gather(*both)

    assert [result.code for result in results] == [0, 0], results
    assert await revision(empty_database_url) == HEAD


async def test_a_failed_migration_leaves_the_database_unchanged(empty_database_url: URL) -> None:
    await execute(empty_database_url, "CREATE TABLE public.agent_jobs (id int)")
    before = await objects(empty_database_url)

    result = await alembic(empty_database_url, "upgrade", "head")

    assert result.code != 0
    assert "agent_jobs" in result.err
    assert await objects(empty_database_url) == before
