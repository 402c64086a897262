"""Guards of the tables: `doctor` and `verify` name each that differs from what the migrations make."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import URL

from ledger.cli.doctor import examine_databases
from ledger.config import Settings
from ledger.database import Database, guards
from ledger.database.migrations import expected_revision, migrate
from ledger.log.tables import PARTITIONS
from projections.verify import verify
from scripts.update_guards import GUARDS, as_text
from tests.audit.sealing import clone
from tests.conftest import administer
from tests.log.helpers import connected
from tests.migrations.helpers import execute
from tests.servers.kinds import direct_url

NO_OP = "CREATE OR REPLACE FUNCTION ledger.refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"

EVERY_EVENTS_TABLE = sorted(f"ledger.{name}" for name in ("events", *PARTITIONS))

# A statement, and the guards that differ after it.
CHANGES = [
    (
        "ALTER TABLE ledger.events DISABLE TRIGGER append_only",
        [f"trigger append_only on {table}" for table in EVERY_EVENTS_TABLE],
    ),
    ("ALTER TABLE ledger.job_events DISABLE TRIGGER append_only", ["trigger append_only on ledger.job_events"]),
    (
        "DROP TRIGGER append_only ON ledger.events",
        [f"trigger append_only on {table}" for table in EVERY_EVENTS_TABLE],
    ),
    ("DROP TRIGGER no_truncate ON ledger.cost_events", ["trigger no_truncate on ledger.cost_events"]),
    (
        "DROP TRIGGER no_truncate ON ledger.events; CREATE TRIGGER no_truncate BEFORE TRUNCATE ON ledger.events "
        "FOR EACH STATEMENT WHEN (false) EXECUTE FUNCTION ledger.refuse_change()",
        ["trigger no_truncate on ledger.events"],
    ),
    (
        "CREATE TRIGGER mine BEFORE INSERT ON ledger.streams FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change()",
        ["trigger mine on ledger.streams"],
    ),
    ("CREATE RULE mine AS ON INSERT TO ledger.holds DO INSTEAD NOTHING", ["rule mine on ledger.holds"]),
    (NO_OP, ["function ledger.refuse_change()"]),
    (
        "CREATE FUNCTION ledger.mine() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'DELETE FROM ledger.events'; "
        "REVOKE ALL ON FUNCTION ledger.mine FROM PUBLIC; ALTER FUNCTION ledger.mine OWNER TO ledger_owner",
        ["function ledger.mine()", "owner of function ledger.mine()"],
    ),
    ("ALTER TABLE ledger.events DROP CONSTRAINT events_position_check", None),
    ("ALTER TABLE ledger.events DROP CONSTRAINT events_stream_id_id_category_key", None),
    ("ALTER TABLE ledger.events ALTER COLUMN actor DROP NOT NULL", ["column ledger.events.actor"]),
    ("ALTER TABLE ledger.streams SET UNLOGGED", ["table ledger.streams"]),
    ("ALTER TABLE ledger.events DETACH PARTITION ledger.job_events", None),
    ("ALTER TABLE public.campaigns DISABLE ROW LEVEL SECURITY", ["row level security of public.campaigns"]),
    ("DROP POLICY ledger_service ON public.campaigns", ["policy ledger_service on public.campaigns"]),
    ("CREATE POLICY mine ON public.campaigns USING (true)", ["policy mine on public.campaigns"]),
    ("GRANT SELECT ON ledger.events TO PUBLIC", ["privileges of PUBLIC on table ledger.events"]),
    ("GRANT SELECT ON public.campaigns TO PUBLIC", ["privileges of PUBLIC on table public.campaigns"]),
    ("GRANT DELETE ON ledger.events TO ledger_service", ["privileges of ledger_service on table ledger.events"]),
    ("REVOKE INSERT ON ledger.events FROM ledger_service", ["privileges of ledger_service on table ledger.events"]),
    ("REVOKE ALL ON ledger.holds FROM ledger_service", ["privileges of ledger_service on table ledger.holds"]),
    (
        "GRANT UPDATE (text) ON ledger.events TO ledger_service",
        ["privileges of ledger_service on column ledger.events.text"],
    ),
    (
        "GRANT EXECUTE ON FUNCTION ledger.erase_text TO PUBLIC",
        ["privileges of PUBLIC on function ledger.erase_text(bigint)"],
    ),
    ("GRANT USAGE ON SCHEMA ledger TO pg_monitor", ["privileges of pg_monitor on schema ledger"]),
    ("ALTER TABLE ledger.log_tiles OWNER TO pg_monitor", None),
    ("ALTER TABLE public.budget_entries DISABLE TRIGGER ALL", None),
    ("ALTER ROLE ledger_reader BYPASSRLS", ["attributes of role ledger_reader"]),
    (
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET session_replication_role = replica', current_database()); "
        "END $$",
        ["setting session_replication_role of the database"],
    ),
]

PERMITTED = [
    "GRANT SELECT, UPDATE ON public.campaigns TO pg_monitor",
    "CREATE INDEX mine ON ledger.events (actor)",
    "ALTER TABLE public.campaigns ADD COLUMN mine text",
    "CREATE TABLE public.mine (id integer PRIMARY KEY)",
    "CREATE VIEW public.mine AS SELECT id FROM public.campaigns",
]


@pytest.fixture(scope="module")
async def migrated_url(server_url: URL, template: str) -> AsyncIterator[URL]:
    """A migrated database that the tests of this module share."""
    url = direct_url(server_url).set(database=f"guards_{uuid.uuid4().hex[:12]}")
    await clone(direct_url(server_url).set(database=template), url)
    yield url
    await administer(server_url, f"DROP DATABASE {url.database} WITH (FORCE)")


async def faults_after(url: URL, statement: str) -> list[str]:
    """Execute a statement in a transaction that is rolled back; return the faults that are found in it."""
    async with connected(url) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(statement)
        faults = await guards.find_guard_faults(connection)
        await transaction.rollback()
        return faults


async def test_the_list_of_guards_is_what_the_migrations_make(migrated_url: URL) -> None:
    async with connected(migrated_url) as connection:
        made = await guards.read_guards(connection)

    assert as_text(made) == GUARDS.read_text(), "run scripts/update_guards.py"
    assert guards.expected_guards().revision == expected_revision()


async def test_a_new_database_has_all_guards_on_each_server(an_empty_database: URL) -> None:
    async with Database(an_empty_database) as database:
        await migrate(database)
        async with database.connection() as connection:
            assert await guards.find_guard_faults(connection) == []
            await connection.execute("DROP TRIGGER no_truncate ON ledger.cost_events")
            (fault,) = await guards.find_guard_faults(connection)

    assert fault == (
        f"trigger no_truncate on ledger.cost_events: missing, but revision {expected_revision()} has CREATE TRIGGER "
        "no_truncate BEFORE TRUNCATE ON ledger.cost_events FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change()"
    )


@pytest.mark.parametrize(("statement", "names"), CHANGES, ids=[statement[:60] for statement, _ in CHANGES])
async def test_each_change_of_a_guard_is_named(migrated_url: URL, statement: str, names: list[str] | None) -> None:
    faults = await faults_after(migrated_url, statement)

    assert faults
    if names is not None:
        assert [fault.partition(": ")[0] for fault in faults] == names


@pytest.mark.parametrize("statement", PERMITTED)
async def test_what_administrators_may_add_is_no_fault(migrated_url: URL, statement: str) -> None:
    assert await faults_after(migrated_url, statement) == []


async def test_a_user_of_the_service_sees_the_same(service_url: URL, database_url: URL) -> None:
    await execute(database_url, f"ALTER TABLE ledger.events DISABLE TRIGGER append_only; {NO_OP}")

    async with connected(database_url) as owner, connected(service_url) as service:
        assert await guards.find_guard_faults(service) == await guards.find_guard_faults(owner) != []


async def test_doctor_and_verify_report_a_guard_that_is_gone_and_the_next_step(database_url: URL) -> None:
    await execute(database_url, "ALTER TABLE ledger.events DISABLE TRIGGER append_only")

    checks = {check.name: check for check in await examine_databases(settings(database_url))}
    async with Database(database_url) as database:
        report = await verify(database, lambda _: None)

    assert checks["guards"].verdict == "problem"
    assert "trigger append_only on ledger.events: CREATE TRIGGER" in checks["guards"].says
    assert "(disabled)" in checks["guards"].says
    assert "Next: find out who changed this" in checks["guards"].says
    assert not report.is_clean
    assert any(fault.startswith("trigger append_only on ledger.events") for fault in report.faults)


def settings(url: URL) -> Any:
    return Settings(database_url=url, direct_database_url=url)


async def test_a_constraint_that_was_restored_from_its_own_definition_is_the_same(migrated_url: URL) -> None:
    """PostgreSQL writes the casts of such a definition otherwise, as after `pg_restore`."""
    async with connected(migrated_url) as connection:
        definition = await connection.fetchval(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'agent_jobs_status_check'"
        )
    restore = "ALTER TABLE public.agent_jobs DROP CONSTRAINT agent_jobs_status_check, ADD CONSTRAINT {} {}"

    assert await faults_after(migrated_url, restore.format("agent_jobs_status_check", definition)) == []
    other = definition.replace("'running'", "'walking'")
    assert len(await faults_after(migrated_url, restore.format("agent_jobs_status_check", other))) == 1
