"""What the role ledger_service may do and what PostgreSQL refuses it, with a documented user."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy import URL

from ledger.database import Database
from ledger.log.tables import EVENT_COLUMNS, PARTITIONS
from tests.events import campaign, content, cost, job
from tests.log.helpers import connected, record

EVENT_TABLES = ("events", *PARTITIONS)
EVENTS = "SELECT events::text FROM ledger.events ORDER BY position"

# Statements that would change a table of events.
EVENT_CHANGES = [
    "UPDATE ledger.{table} SET actor = 'somebody'",
    "UPDATE ledger.{table} SET text = NULL, text_salt = NULL",
    "DELETE FROM ledger.{table}",
    "TRUNCATE ledger.{table}",
    "TRUNCATE ledger.{table} CASCADE",
    "DROP TABLE ledger.{table} CASCADE",
    "ALTER TABLE ledger.{table} DISABLE TRIGGER append_only",
    "ALTER TABLE ledger.{table} DISABLE TRIGGER ALL",
    "DROP TRIGGER no_truncate ON ledger.{table}",
    "ALTER TABLE ledger.{table} OWNER TO CURRENT_USER",
    "ALTER TABLE ledger.{table} ADD COLUMN more text",
    "ALTER TABLE ledger.{table} RENAME TO other",
    "CREATE TRIGGER mine BEFORE INSERT ON ledger.{table} FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change()",
    "CREATE RULE nothing AS ON INSERT TO ledger.{table} DO INSTEAD NOTHING",
    "CREATE INDEX mine ON ledger.{table} (actor)",
    "INSERT INTO ledger.{table} SELECT * FROM ledger.{table} "
    "ON CONFLICT (stream_id, version, category) DO UPDATE SET actor = 'somebody'",
    "MERGE INTO ledger.{table} AS old USING ledger.{table} AS new ON old.id = new.id WHEN MATCHED THEN DELETE",
    "SELECT FROM ledger.{table} FOR UPDATE",
    "LOCK TABLE ledger.{table} IN ACCESS EXCLUSIVE MODE",
]

# Statements that would circumvent the privileges.
CIRCUMVENTIONS = [
    "SET session_replication_role = replica",
    "SET ROLE ledger_owner",
    "SET SESSION AUTHORIZATION ledger_owner",
    "GRANT ledger_owner TO CURRENT_USER",
    "ALTER ROLE CURRENT_USER SUPERUSER",
    "ALTER ROLE CURRENT_USER BYPASSRLS",
    "CREATE ROLE mine SUPERUSER",
    "ALTER TABLE ledger.events DETACH PARTITION ledger.cost_events",
    "CREATE TABLE ledger.more_events PARTITION OF ledger.events DEFAULT",
    "CREATE TABLE ledger.mine ()",
    "CREATE TABLE public.mine ()",
    "CREATE SCHEMA mine",
    "DROP SCHEMA ledger CASCADE",
    "ALTER SCHEMA ledger RENAME TO other",
    "ALTER DEFAULT PRIVILEGES FOR ROLE ledger_owner GRANT ALL ON TABLES TO PUBLIC",
    "CREATE FUNCTION ledger.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE OR REPLACE FUNCTION ledger.refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    "CREATE OR REPLACE FUNCTION ledger.erase_text(p_position bigint) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
    "ALTER FUNCTION ledger.erase_text SECURITY INVOKER",
    "ALTER FUNCTION ledger.erase_text SET search_path = pg_temp",
    "ALTER FUNCTION ledger.erase_text OWNER TO CURRENT_USER",
    "DROP FUNCTION ledger.refuse_change CASCADE",
    "CALL ledger.grant_roles()",
    "UPDATE pg_catalog.pg_trigger SET tgenabled = 'D'",
    "COPY ledger.events TO PROGRAM 'true'",
    "DROP POLICY ledger_reader ON public.campaigns",
    "ALTER TABLE public.campaigns DISABLE ROW LEVEL SECURITY",
    "TRUNCATE public.campaigns CASCADE",
    "UPDATE public.alembic_version SET version_num = '0001'",
    "DELETE FROM ledger.streams",
    "DELETE FROM ledger.accounts",
    "DELETE FROM ledger.log_tiles",
    "DELETE FROM ledger.api_keys",
    "UPDATE ledger.holds SET amount = 1",
    "INSERT INTO ledger.log_head (position, recorded_at) VALUES (1, now())",
    "DELETE FROM ledger.projection_checkpoints",
]


@pytest.fixture
async def recorded(service_url: URL) -> None:
    """An event in each category, appended by the code of the service as the user of the service."""
    database = Database(service_url)
    opened = campaign()
    await record(database, opened, job(opened["id"]), content(), cost(description="For tea"))
    await database.close()


@pytest.fixture
async def service(service_url: URL, recorded: None) -> AsyncIterator[Any]:
    async with connected(service_url) as connection:
        yield connection


@pytest.fixture
async def owner(database_url: URL) -> AsyncIterator[Any]:
    async with connected(database_url) as connection:
        yield connection


MOVE_HEAD = "UPDATE ledger.log_head SET position = position + 1"

RECORD_ERASURE = """
INSERT INTO ledger.events (
    position, category, stream_id, version, id, type, schema_version, occurred_at, recorded_at, actor, data, size
)
SELECT head.position, 'ledger', event.stream_id, head.position, gen_random_uuid(), 'ledger.payload_erased', 1, now(),
    now(), 'me', json_build_object('position', event.position, 'category', category), 1
FROM ledger.events AS event, ledger.log_head AS head WHERE event.position = {}
"""


async def erase(connection: Any, position: int) -> Any:
    """Record an erasure at the end of the log, and erase, in one transaction."""
    async with connection.transaction():
        await connection.execute(MOVE_HEAD)
        await connection.execute(RECORD_ERASURE.format(position))
        return await connection.fetchval("SELECT ledger.erase_text($1)", position)


async def refusals(connection: Any, statements: list[str]) -> dict[str, str]:
    """Run each statement and roll it back; return the name of its error, or "passed"."""
    outcomes = {}
    for statement in statements:
        attempt = connection.transaction()
        await attempt.start()
        try:
            await connection.execute(statement)
            outcomes[statement] = "passed"
        except asyncpg.PostgresError as error:
            outcomes[statement] = type(error).__name__
        finally:
            await attempt.rollback()
    return outcomes


async def test_every_change_of_events_is_refused(service: Any, owner: Any) -> None:
    before = await owner.fetch(EVENTS)
    statements = [statement.format(table=table) for table in EVENT_TABLES for statement in EVENT_CHANGES]

    outcomes = await refusals(service, statements)

    assert outcomes == dict.fromkeys(statements, "InsufficientPrivilegeError")
    assert (await owner.fetch(EVENTS), len(before)) == (before, 4)


async def test_the_service_cannot_grant_itself_privileges(service: Any) -> None:
    await service.execute("GRANT ALL ON ledger.events, ledger.job_events TO CURRENT_USER WITH GRANT OPTION")

    outcomes = await refusals(service, ["UPDATE ledger.events SET actor = 'somebody'", "DELETE FROM ledger.job_events"])

    assert set(outcomes.values()) == {"InsufficientPrivilegeError"}


async def test_every_circumvention_is_refused(service: Any) -> None:
    outcomes = await refusals(service, CIRCUMVENTIONS)

    assert outcomes == dict.fromkeys(CIRCUMVENTIONS, "InsufficientPrivilegeError")


async def test_the_service_cannot_become_the_administrator(service: Any, owner: Any) -> None:
    administrator = await owner.fetchval("SELECT session_user")

    outcomes = await refusals(service, [f"SET ROLE {administrator}", f"SET SESSION AUTHORIZATION {administrator}"])

    assert set(outcomes.values()) == {"InsufficientPrivilegeError"}


@pytest.mark.parametrize("table", EVENT_TABLES)
async def test_the_service_may_insert_copy_and_read_events(service: Any, table: str) -> None:
    category = "job" if table == "events" else table.removesuffix("_events")
    others = ", ".join(column for column in EVENT_COLUMNS if column not in ("category", "stream_id"))
    rows = await service.fetch(f"SELECT '{category}', gen_random_uuid(), {others} FROM ledger.events LIMIT 1")
    columns = ("category", "stream_id", *others.split(", "))

    inserted = await service.execute(
        f"INSERT INTO ledger.{table} (category, stream_id, {others}) "
        f"SELECT '{category}', gen_random_uuid(), {others} FROM ledger.events LIMIT 1"
    )
    copied = await service.copy_records_to_table(table, schema_name="ledger", columns=columns, records=rows)

    assert (inserted, copied) == ("INSERT 0 1", "COPY 1")
    assert await service.fetchval(f"SELECT count(*) FROM ledger.{table} WHERE category = '{category}'") >= 2


async def test_erasing_deletes_text_and_salt_of_one_event_and_changes_nothing_else(service: Any, owner: Any) -> None:
    others = ", ".join(column for column in EVENT_COLUMNS if column not in ("text", "text_salt"))
    unchanged = f"SELECT ROW({others})::text FROM ledger.events WHERE position <= 4 ORDER BY position"
    texts = "SELECT position FROM ledger.events WHERE text IS NOT NULL AND text_salt IS NOT NULL ORDER BY position"
    before, had_text = await owner.fetch(unchanged), [row[0] for row in await owner.fetch(texts)]

    results = [await erase(service, 4) for _ in range(2)]

    assert results == [True, False]
    assert [row[0] for row in await owner.fetch(texts)] == [position for position in had_text if position != 4]
    assert 4 in had_text
    assert await owner.fetch(unchanged) == before


async def test_no_text_is_erased_without_its_event_in_the_same_transaction(service: Any, owner: Any) -> None:
    texts = "SELECT count(*) FROM ledger.events WHERE text IS NOT NULL"
    before = await owner.fetchval(texts)

    async def refused(*prepared: str) -> None:
        transaction = service.transaction()
        await transaction.start()
        for statement in prepared:
            await service.execute(statement)
        with pytest.raises(asyncpg.RestrictViolationError, match=r"records no ledger\.payload_erased of it"):
            await service.fetchval("SELECT ledger.erase_text(4)")
        await transaction.rollback()

    await refused()
    await refused(MOVE_HEAD, RECORD_ERASURE.format(3))
    # Beyond the end of the log no event is part of it.
    await refused(RECORD_ERASURE.format(4).replace("head.position,", "head.position + 1,"))
    async with service.transaction():
        await service.execute(MOVE_HEAD)
        await service.execute(RECORD_ERASURE.format(4))
    await refused()
    for position in (999, None):
        with pytest.raises(asyncpg.RestrictViolationError):
            await service.fetchval("SELECT ledger.erase_text($1)", position)

    assert await owner.fetchval(texts) == before


async def test_the_erasure_ignores_tables_functions_and_the_search_path_of_the_caller(service: Any, owner: Any) -> None:
    await service.execute("""
        CREATE TEMPORARY TABLE events (position bigint, text text, text_salt text);
        INSERT INTO pg_temp.events VALUES (4, 'mine', 'mine');
        CREATE TEMPORARY TABLE taken (name text);
        CREATE FUNCTION pg_temp.take() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN INSERT INTO pg_temp.taken VALUES (current_user); RETURN NEW; END';
        CREATE TRIGGER take BEFORE UPDATE ON pg_temp.events FOR EACH ROW EXECUTE FUNCTION pg_temp.take();
        CREATE FUNCTION pg_temp.int8eq(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT true';
        CREATE OPERATOR pg_temp.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = pg_temp.int8eq);
        SET search_path = pg_temp, ledger, public;
    """)
    texts = "SELECT count(*) FROM ledger.events WHERE text IS NOT NULL"
    before = await owner.fetchval(texts)

    erased = await erase(service, 4)

    assert (erased, await owner.fetchval(texts)) == (True, before - 1)
    assert await service.fetch("SELECT text FROM pg_temp.events") == [("mine",)]
    assert await service.fetch("SELECT name FROM pg_temp.taken") == []


async def test_other_roles_may_not_erase(owner: Any, recorded: None) -> None:
    await owner.execute("SET ROLE ledger_reader")

    outcomes = await refusals(owner, ["SELECT ledger.erase_text(4)", "SELECT FROM ledger.events"])

    assert set(outcomes.values()) == {"InsufficientPrivilegeError"}


async def test_a_reader_may_only_read_the_read_models(owner: Any, recorded: None) -> None:
    models = ("campaigns", "content_assets", "agent_jobs", "budget_entries")
    await owner.execute(
        "INSERT INTO public.campaigns (id, name, budget, currency, start_date, created_at, updated_at, position) "
        "VALUES (gen_random_uuid(), 'C', 1, 'USD', now(), now(), now(), 1)"
    )
    await owner.execute("SET ROLE ledger_reader")

    count = await owner.fetchval("SELECT count(*) FROM public.campaigns")
    outcomes = await refusals(
        owner,
        [f"{verb} public.{model}" for model in models for verb in ("DELETE FROM", "TRUNCATE", "SELECT FROM")]
        + ["UPDATE public.campaigns SET budget = 2", "TABLE public.alembic_version", "TABLE ledger.events"],
    )

    assert count == 1
    passed = [statement for statement, outcome in outcomes.items() if outcome == "passed"]
    assert passed == [f"SELECT FROM public.{model}" for model in models]
    assert set(outcomes.values()) == {"passed", "InsufficientPrivilegeError"}
