"""Migrations on servers without the roles: if they can be created, cannot, or are created later.

The migrating user is not a superuser but owns its database, as on a hosted PostgreSQL.
"""

import asyncio
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import URL

from ledger.config import parse_url
from ledger.database import Database
from ledger.database.migrations import migrate
from ledger.embedded import EmbeddedServer
from projections.rebuild import rebuild
from projections.snapshots import replay_into
from projections.verify import verify
from projections.worker import fold_page
from tests.conftest import administer
from tests.events import campaign, cost, job
from tests.log.helpers import connected, query, record
from tests.migrations.helpers import HEAD, alembic, execute, objects, revision, run_alembic

ROLES = ("ledger_owner", "ledger_service", "ledger_reader")

OWNERS = """
SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class
WHERE relnamespace IN ('ledger'::regnamespace, 'public'::regnamespace) AND relkind IN ('r', 'p', 'v')
UNION SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'ledger'
UNION SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE pronamespace = 'ledger'::regnamespace
"""

WITHOUT_ROW_SECURITY = """
SELECT string_agg(relname, ', ') FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND NOT relrowsecurity
"""

# Objects in this database that depend on the three roles, which prevent dropping them.
DEPENDS_ON_ROLES = """
SELECT count(*) FROM pg_shdepend WHERE refobjid IN (
    SELECT oid FROM pg_roles WHERE rolname IN ('ledger_owner', 'ledger_service', 'ledger_reader')
) AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@pytest.fixture(scope="module")
def embedded_18() -> Iterator[URL]:
    """A second embedded server: on the one of the session, the roles exist already."""
    with tempfile.TemporaryDirectory(prefix="ledger-roles-") as home, EmbeddedServer.acquire(Path(home)) as server:
        yield parse_url("DATABASE_URL", server.url)


class Cluster(NamedTuple):
    """A server without the roles of the ledger; `url` connects as its superuser."""

    url: URL

    async def database(self, owner: str, attributes: str = "") -> URL:
        """Create an empty database that belongs to a new user with these attributes."""
        name = f"{owner}_{uuid.uuid4().hex[:8]}"
        await administer(self.url, f"CREATE ROLE {name} LOGIN PASSWORD 'secret' {attributes}")
        await administer(self.url, f"CREATE DATABASE {name} OWNER {name}")
        return self.url.set(username=name, password="secret", database=name)

    async def app(self, database: URL) -> URL:
        """Create a database user for the service, as documented."""
        name = f"app_{uuid.uuid4().hex[:8]}"
        await administer(self.url, f"CREATE ROLE {name} LOGIN PASSWORD 'secret' IN ROLE ledger_service")
        return database.set(username=name, password="secret")


@pytest.fixture(params=["embedded_18", "postgresql_15"])
async def cluster(request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    url: URL = request.getfixturevalue(request.param)
    async with connected(url) as connection:
        databases = {row[0] for row in await connection.fetch("SELECT datname FROM pg_database")}
        roles = {row[0] for row in await connection.fetch("SELECT rolname FROM pg_roles")}
    assert not roles & set(ROLES)
    yield Cluster(url)
    async with connected(url) as connection:
        for name in {row[0] for row in await connection.fetch("SELECT datname FROM pg_database")} - databases:
            await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        created = {row[0] for row in await connection.fetch("SELECT rolname FROM pg_roles")} - roles
        for name in sorted(created, key=lambda name: name in ROLES):
            await connection.execute(f"DROP ROLE {name}")


async def owners(url: URL) -> set[str]:
    async with connected(url) as connection:
        return {row[0] for row in await connection.fetch(OWNERS)}


async def migrated(url: URL, to: str = "head") -> None:
    database = Database(url)
    await migrate(database, to=to)
    await database.close()


async def scalar(url: URL, statement: str) -> Any:
    async with connected(url) as connection:
        return await connection.fetchval(statement)


async def assert_works(app: URL, owner: URL) -> None:
    """Append and fold as the user of the service; verify, rebuild and replay as the owner."""
    database, owner_database = Database(app), Database(owner)
    opened = campaign("100")
    await record(database, opened, job(opened["id"]), cost("3", campaign_id=opened["id"]))
    assert await fold_page(database) == 3
    await query(owner_database, "UPDATE public.campaigns SET spend = 99")
    differences: list[Any] = []
    report = await verify(owner_database, differences.append)
    rebuilt = await rebuild(owner_database)
    replayed = await replay_into(owner_database, "as_it_was", 1)
    assert (report.differences, report.faults) == (1, [])
    assert (rebuilt.written["campaigns"], replayed.position) == (1, 1)
    assert await query(database, "SELECT spend FROM public.campaigns") == [(3,)]
    assert await query(owner_database, "SELECT spend FROM as_it_was.campaigns") == [(0,)]
    await database.close()
    await owner_database.close()


async def test_a_user_that_may_create_roles_transfers_everything_to_the_owner_and_keeps_access(
    cluster: Cluster,
) -> None:
    url = await cluster.database("migrator", "CREATEROLE")

    result = await alembic(url, "upgrade", "head")

    assert (result.code, "WARN" in result.err.upper()) == (0, False), result.err
    assert await owners(url) == {"ledger_owner"}
    assert "No new upgrade operations detected" in await run_alembic(url, "check")
    await assert_works(await cluster.app(url), url)


async def test_a_user_that_may_not_create_roles_migrates_without_them_and_logs_a_warning(cluster: Cluster) -> None:
    url = await cluster.database("migrator")

    result = await alembic(url, "upgrade", "head")

    assert (result.code, await revision(url)) == (0, HEAD)
    assert "may not make roles, so these are left out: ledger_owner, ledger_service, ledger_reader" in result.err
    assert await owners(url) == {url.username}
    assert await scalar(url, WITHOUT_ROW_SECURITY) is None
    await assert_works(url, url)


async def test_roles_created_later_by_an_administrator_are_used(cluster: Cluster) -> None:
    url = await cluster.database("migrator")
    await migrated(url)

    await administer(cluster.url, f"CREATE ROLE ledger_owner NOLOGIN ROLE {url.username}")
    await administer(cluster.url, "CREATE ROLE ledger_service NOLOGIN")
    await administer(cluster.url, "CREATE ROLE ledger_reader NOLOGIN")
    await execute(url, "CALL ledger.grant_roles()")
    await execute(url, "CALL ledger.grant_roles()")

    assert await owners(url) == {"ledger_owner"}
    await assert_works(await cluster.app(url), url)


async def test_without_membership_in_the_owner_role_the_migrating_user_keeps_the_tables(cluster: Cluster) -> None:
    first, second = await cluster.database("first", "CREATEROLE"), await cluster.database("second")
    await migrated(first)

    result = await alembic(second, "upgrade", "head")

    assert result.code == 0
    assert "may not hand everything over to ledger_owner" in result.err
    assert (await owners(first), await owners(second)) == ({"ledger_owner"}, {second.username})
    await assert_works(await cluster.app(second), second)


async def test_databases_of_one_server_can_be_migrated_concurrently(cluster: Cluster) -> None:
    urls = [await cluster.database("migrator", "CREATEROLE") for _ in range(2)]
    urls += [(await cluster.database("other")).set(username=cluster.url.username, password=cluster.url.password)]

    results = await asyncio.gather(*(alembic(url, "upgrade", "head") for url in urls))

    assert [result.code for result in results] == [0, 0, 0], results
    assert [await revision(url) for url in urls] == [HEAD] * 3
    await assert_works(await cluster.app(urls[0]), urls[0])


async def test_a_migration_waits_for_another_database_that_is_creating_the_roles(cluster: Cluster) -> None:
    url = await cluster.database("migrator", "CREATEROLE")
    async with connected(cluster.url) as other:
        creation = other.transaction()
        await creation.start()
        await other.execute("CREATE ROLE ledger_service NOLOGIN")
        migrating = asyncio.create_task(alembic(url, "upgrade", "head"))
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'grant_roles'"
        async with asyncio.timeout(30), connected(cluster.url) as watcher:
            while not await watcher.fetchval(waiting):
                await asyncio.sleep(0.05)
        await creation.commit()
        result = await migrating

    assert result.code == 0, result.err
    assert await owners(url) == {"ledger_owner"}


async def test_a_downgrade_revokes_privileges_and_keeps_the_roles(cluster: Cluster) -> None:
    url = await cluster.database("migrator", "CREATEROLE")
    await migrated(url, "0003")
    before = await objects(url)
    await migrated(url)

    await run_alembic(url, "downgrade", "0003")

    # The secret of derived ids stays.
    after = [each for each in await objects(url) if "idempotency_secret" not in each]
    assert (after, await owners(url)) == (before, {url.username})
    assert await scalar(url, DEPENDS_ON_ROLES) == 0
    assert await scalar(url, "SELECT count(*) FROM pg_class WHERE relrowsecurity") == 0
    assert await scalar(url, "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'ledger\\_%'") == 3
    assert await scalar(url, "SELECT has_function_privilege('pg_monitor', 'ledger.refuse_change()', 'EXECUTE')")


async def test_after_a_reset_the_user_of_the_service_still_has_access(cluster: Cluster) -> None:
    url = await cluster.database("migrator", "CREATEROLE")
    await migrated(url)
    app = await cluster.app(url)

    await migrated(url, "base")
    await migrated(url)

    assert await owners(url) == {"ledger_owner"}
    await assert_works(app, url)


async def test_a_table_of_another_user_keeps_its_owner(cluster: Cluster) -> None:
    url = await cluster.database("migrator")
    await migrated(url, "0003")

    result = await alembic(url.set(username=cluster.url.username, password=cluster.url.password), "upgrade", "head")

    assert result.code == 0, result.err
    assert "may not hand everything over" in result.err
    assert {url.username} == await owners(url) - {cluster.url.username}
    database = Database(url)
    await record(database, campaign())
    assert await fold_page(database) == 1
    await database.close()
