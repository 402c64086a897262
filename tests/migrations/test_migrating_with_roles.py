"""Migrating where roles may be made, may not be made, or are there already: on servers that have none of them yet.

The migrating user is no superuser but owns its database, as with any hosted PostgreSQL.
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
from tests.migrations.helpers import HEAD, alembic, execute, must, objects, revision

ROLES = ("ledger_owner", "ledger_service", "ledger_reader")

OWNERS = """
SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class
WHERE relnamespace IN ('ledger'::regnamespace, 'public'::regnamespace) AND relkind IN ('r', 'p')
UNION SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'ledger'
UNION SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE pronamespace = 'ledger'::regnamespace
"""

# What in this database hangs on the three roles; with anything here they could not be dropped.
HANGS_ON_ROLES = """
SELECT count(*) FROM pg_shdepend WHERE refobjid IN (
    SELECT oid FROM pg_roles WHERE rolname IN ('ledger_owner', 'ledger_service', 'ledger_reader')
) AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@pytest.fixture(scope="module")
def embedded_18() -> Iterator[URL]:
    """An embedded server beside the session's, whose roles are made already."""
    with tempfile.TemporaryDirectory(prefix="ledger-roles-") as home, EmbeddedServer.acquire(Path(home)) as server:
        yield parse_url("DATABASE_URL", server.url)


class Cluster(NamedTuple):
    """A server without the ledger's roles: `url` is its superuser's."""

    url: URL

    async def database(self, owner: str, attributes: str = "") -> URL:
        """An empty database of a new user with these attributes."""
        name = f"{owner}_{uuid.uuid4().hex[:8]}"
        await administer(self.url, f"CREATE ROLE {name} LOGIN PASSWORD 'secret' {attributes}")
        await administer(self.url, f"CREATE DATABASE {name} OWNER {name}")
        return self.url.set(username=name, password="secret", database=name)

    async def app(self, database: URL) -> URL:
        """A user of the service's, made as the README says."""
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
        made = {row[0] for row in await connection.fetch("SELECT rolname FROM pg_roles")} - roles
        for name in sorted(made, key=lambda name: name in ROLES):
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


async def works(app: URL, owner: URL) -> None:
    """The service's work as the one user, the owner's as the other."""
    database, owners_engine = Database(app), Database(owner)
    opened = campaign("100")
    await record(database, opened, job(opened["id"]), cost("3", campaign_id=opened["id"]))
    assert await fold_page(database) == 3
    await query(owners_engine, "UPDATE public.campaigns SET spend = 99")
    differences: list[Any] = []
    report = await verify(owners_engine, differences.append)
    rebuilt = await rebuild(owners_engine)
    replayed = await replay_into(owners_engine, "as_it_was", 1)
    assert (report.differences, report.faults) == (1, [])
    assert (rebuilt.written["campaigns"], replayed.position) == (1, 1)
    assert await query(database, "SELECT spend FROM public.campaigns") == [(3,)]
    assert await query(owners_engine, "SELECT spend FROM as_it_was.campaigns") == [(0,)]
    await database.close()
    await owners_engine.close()


async def test_a_user_who_may_make_roles_hands_everything_to_the_owner_and_works_on(cluster: Cluster) -> None:
    url = await cluster.database("migrator", "CREATEROLE")

    said = await alembic(url, "upgrade", "head")

    assert (said.code, "WARN" in said.err.upper()) == (0, False), said.err
    assert await owners(url) == {"ledger_owner"}
    assert "No new upgrade operations detected" in await must(url, "check")
    await works(await cluster.app(url), url)


async def test_a_user_who_may_make_no_roles_leaves_them_out_and_says_so(cluster: Cluster) -> None:
    url = await cluster.database("migrator")

    said = await alembic(url, "upgrade", "head")

    assert (said.code, await revision(url)) == (0, HEAD)
    assert "may not make roles, so these are left out: ledger_owner, ledger_service, ledger_reader" in said.err
    assert await owners(url) == {url.username}
    assert await scalar(url, "SELECT count(*) FROM pg_class WHERE relrowsecurity") == 5
    await works(url, url)


async def test_roles_that_an_administrator_makes_later_are_taken_up(cluster: Cluster) -> None:
    url = await cluster.database("migrator")
    await migrated(url)

    await administer(cluster.url, f"CREATE ROLE ledger_owner NOLOGIN ROLE {url.username}")
    await administer(cluster.url, "CREATE ROLE ledger_service NOLOGIN")
    await administer(cluster.url, "CREATE ROLE ledger_reader NOLOGIN")
    await execute(url, "CALL ledger.grant_roles()")
    await execute(url, "CALL ledger.grant_roles()")

    assert await owners(url) == {"ledger_owner"}
    await works(await cluster.app(url), url)


async def test_where_the_owners_role_is_somebody_elses_the_tables_stay_with_who_made_them(cluster: Cluster) -> None:
    first, second = await cluster.database("first", "CREATEROLE"), await cluster.database("second")
    await migrated(first)

    said = await alembic(second, "upgrade", "head")

    assert said.code == 0
    assert "may not hand everything over to ledger_owner" in said.err
    assert (await owners(first), await owners(second)) == ({"ledger_owner"}, {second.username})
    await works(await cluster.app(second), second)


async def test_databases_of_one_server_may_be_migrated_at_the_same_moment(cluster: Cluster) -> None:
    urls = [await cluster.database("migrator", "CREATEROLE") for _ in range(2)]
    urls += [(await cluster.database("other")).set(username=cluster.url.username, password=cluster.url.password)]

    said = await asyncio.gather(*(alembic(url, "upgrade", "head") for url in urls))

    assert [ended.code for ended in said] == [0, 0, 0], said
    assert [await revision(url) for url in urls] == [HEAD] * 3
    await works(await cluster.app(urls[0]), urls[0])


async def test_a_migration_waits_for_another_database_that_is_making_the_roles(cluster: Cluster) -> None:
    url = await cluster.database("migrator", "CREATEROLE")
    async with connected(cluster.url) as other:
        making = other.transaction()
        await making.start()
        await other.execute("CREATE ROLE ledger_service NOLOGIN")
        migrating = asyncio.create_task(alembic(url, "upgrade", "head"))
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'grant_roles'"
        async with asyncio.timeout(30), connected(cluster.url) as watcher:
            while not await watcher.fetchval(waiting):
                await asyncio.sleep(0.05)
        await making.commit()
        said = await migrating

    assert said.code == 0, said.err
    assert await owners(url) == {"ledger_owner"}


async def test_going_back_takes_rights_away_and_leaves_the_roles(cluster: Cluster) -> None:
    url = await cluster.database("migrator", "CREATEROLE")
    await migrated(url, "0003")
    before = await objects(url)
    await migrated(url)

    await must(url, "downgrade", "0003")

    assert (await objects(url), await owners(url)) == (before, {url.username})
    assert await scalar(url, HANGS_ON_ROLES) == 0
    assert await scalar(url, "SELECT count(*) FROM pg_class WHERE relrowsecurity") == 0
    assert await scalar(url, "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'ledger\\_%'") == 3
    assert await scalar(url, "SELECT has_function_privilege('pg_monitor', 'ledger.refuse_change()', 'EXECUTE')")


async def test_a_reset_leaves_the_services_user_able_to_work(cluster: Cluster) -> None:
    url = await cluster.database("migrator", "CREATEROLE")
    await migrated(url)
    app = await cluster.app(url)

    await migrated(url, "base")
    await migrated(url)

    assert await owners(url) == {"ledger_owner"}
    await works(app, url)


async def test_a_table_that_belongs_to_another_user_is_not_taken_from_him(cluster: Cluster) -> None:
    url = await cluster.database("migrator")
    await migrated(url, "0003")

    said = await alembic(url.set(username=cluster.url.username, password=cluster.url.password), "upgrade", "head")

    assert said.code == 0, said.err
    assert "may not hand everything over" in said.err
    assert {url.username} == await owners(url) - {cluster.url.username}
    database = Database(url)
    await record(database, campaign())
    assert await fold_page(database) == 1
    await database.close()
