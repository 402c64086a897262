"""Migrating with the command `alembic`: up, down, up again, and the database compared with the models."""

import asyncio
import shutil
from pathlib import Path

import pytest
from sqlalchemy import URL

from ledger.database import make_engine
from projections.worker import fold_page
from tests.events import campaign, cost, reserve
from tests.log.helpers import connected, query, record, until
from tests.migrations.conftest import MakeDatabase
from tests.migrations.helpers import HEAD, REPOSITORY, alembic, execute, must, objects

ADVISORY_LOCK = 0x6C65646765720001
WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


@pytest.mark.parametrize("role", ["ledger", "somebody"])
async def test_up_down_and_up_again_leave_what_they_should(make_database: MakeDatabase, role: str) -> None:
    url = await make_database(role)
    empty, unmigrated = await objects(url), await must(url, "current")

    await must(url, "upgrade", "head")
    migrated, current = await objects(url), await must(url, "current")
    checked = await must(url, "check")
    await must(url, "downgrade", "base")
    left = await objects(url)
    await must(url, "upgrade", "+1")
    half = await must(url, "current")
    await must(url, "upgrade", "head")

    assert (empty, unmigrated) == ([], "")
    assert current == f"{HEAD} (head)\n"
    assert "No new upgrade operations detected" in checked
    assert left == ["i public.alembic_version_pkc", "r public.alembic_version"]
    assert half == "0001\n"
    assert await objects(url) == migrated
    assert {"r public.campaigns", "p ledger.events", "r ledger.cost_events", "function ledger.lock_and_load"} <= {
        *migrated
    }


async def test_the_history_names_every_revision(server_url: URL) -> None:
    history = await must(server_url, "history")

    assert [line.split(",")[0] for line in history.splitlines()] == ["0001 -> 0002 (head)", "<base> -> 0001"]


@pytest.mark.parametrize("role", ["ledger", "somebody"])
async def test_the_sql_written_for_a_database_administrator_does_the_same(
    make_database: MakeDatabase, role: str
) -> None:
    url = await make_database(role)
    script = await must(url, "upgrade", "head", "--sql")

    async with connected(url) as connection:
        await connection.execute(script)

    assert await must(url, "current") == f"{HEAD} (head)\n"
    assert "No new upgrade operations detected" in await must(url, "check")
    by_script = await objects(url)
    await must(url, "downgrade", "base")
    await must(url, "upgrade", "head")
    assert await objects(url) == by_script


@pytest.mark.parametrize(
    "drift",
    [
        "ALTER TABLE campaigns DROP COLUMN revenue",
        "ALTER TABLE campaigns ADD COLUMN colour text",
        "ALTER TABLE campaigns ALTER COLUMN description SET NOT NULL",
        "ALTER TABLE campaigns ALTER COLUMN spend TYPE numeric(20, 10)",
        "ALTER TABLE campaigns ALTER COLUMN clicks DROP DEFAULT",
        "CREATE INDEX stray ON agent_jobs (retry_count)",
        "DROP INDEX ledger.holds_expires_at_idx",
        "ALTER TABLE ledger.accounts DROP COLUMN held",
        "ALTER TABLE ledger.events DROP CONSTRAINT events_stream_id_id_category_key",
        "ALTER TABLE content_assets DROP CONSTRAINT content_assets_campaign_id_fkey",
        "CREATE TABLE ledger.stray (id int)",
    ],
)
async def test_a_drift_between_database_and_models_is_found(database_url: URL, drift: str) -> None:
    await execute(database_url, drift)

    said = await alembic(database_url, "check")

    assert said.code != 0
    assert "New upgrade operations detected" in said.err


async def test_tables_of_others_beside_ours_are_no_drift(database_url: URL) -> None:
    await execute(
        database_url, "CREATE TABLE public.of_others (id int); CREATE SCHEMA auth; CREATE TABLE auth.users ()"
    )

    assert "No new upgrade operations detected" in await must(database_url, "check")


async def test_autogenerate_writes_a_revision_that_does_nothing(database_url: URL, tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "alembic.ini", tmp_path)
    shutil.copytree(REPOSITORY / "alembic", tmp_path / "alembic", ignore=shutil.ignore_patterns("__pycache__"))

    said = await alembic(
        database_url,
        "revision",
        "--autogenerate",
        "-m",
        "nothing",
        "--rev-id",
        "0003",
        configuration=tmp_path / "alembic.ini",
    )

    assert said.code == 0, said.err
    written = (tmp_path / "alembic" / "versions" / "0003_nothing.py").read_text()
    assert written.count("    pass\n") == 2
    assert "op." not in written.replace("from alembic import op", "")
    assert 'down_revision = "0002"' in written.replace("'", '"')


async def test_two_migrations_at_once_wait_for_each_other(empty_database_url: URL) -> None:
    async with connected(empty_database_url) as holder:
        await holder.execute("SELECT pg_advisory_lock($1)", ADVISORY_LOCK)
        both = [asyncio.create_task(alembic(empty_database_url, "upgrade", "head")) for _ in range(2)]

        async def both_wait() -> bool:
            return bool(await holder.fetchval(WAITING) == 2)

        await until(both_wait)
        assert await holder.fetchval("SELECT to_regclass('ledger.events')") is None
        await holder.execute("SELECT pg_advisory_unlock($1)", ADVISORY_LOCK)
        said = await asyncio.gather(*both)

    assert [ended.code for ended in said] == [0, 0], said
    assert await must(empty_database_url, "current") == f"{HEAD} (head)\n"


async def test_a_migration_that_fails_leaves_the_database_as_it_was(empty_database_url: URL) -> None:
    await execute(empty_database_url, "CREATE TABLE public.agent_jobs (id int)")
    before = await objects(empty_database_url)

    said = await alembic(empty_database_url, "upgrade", "head")

    assert said.code != 0
    assert "agent_jobs" in said.err
    assert await objects(empty_database_url) == before


async def test_a_database_that_was_migrated_takes_events_and_shows_them(make_database: MakeDatabase) -> None:
    url = await make_database("somebody")
    await must(url, "upgrade", "head")
    engine, opened = make_engine(url), campaign("10")

    await record(engine, opened, cost("3", campaign_id=opened["id"]), reserve("2", campaign_id=opened["id"]))
    await fold_page(engine)

    assert await query(engine, "SELECT spend, held FROM campaigns") == [(3, 2)]
    await engine.dispose()
