"""The backup chapter of docs/guides/operators.md: pg_dump under load, pg_restore, verify."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL, make_url

from ledger.database import Database
from ledger.embedded.cluster import installed_binaries
from tests.audit.sealing import ORIGIN, sealed_log
from tests.cli.helpers import ledger, plain, run
from tests.conftest import administer
from tests.events import campaign, cost, job
from tests.log.helpers import connected, query, record, value
from tests.projections.helpers import folded, stored, tables
from tests.projections.replaying import fold_everything
from tests.servers.postgresql import BINARIES

pytestmark = pytest.mark.direct


@asynccontextmanager
async def empty_database(server: URL, name: str, owner: str) -> AsyncIterator[URL]:
    await administer(server, f"CREATE DATABASE {name} OWNER {owner}")
    yield server.set(database=name)
    await administer(server, f"DROP DATABASE {name} WITH (FORCE)")


async def run_client(program: str, *arguments: str) -> None:
    """Run a client program of the server's major version: a dump by another version may not be restorable."""
    url = next(argument for argument in arguments if "://" in argument).removeprefix("--dbname=")
    async with connected(make_url(url)) as connection:
        major = connection.get_server_version().major
    binaries = BINARIES if f"/{major}/" in f"{BINARIES}/" else installed_binaries()
    result = await run(binaries / program, *arguments)
    assert (result.code, result.err) == (0, "")


async def test_a_dump_made_under_load_can_be_restored_verified_and_continued(
    server_url: URL, database_url: URL, database: Database, tmp_path: Path
) -> None:
    dump, home = tmp_path / "ledger.dump", tmp_path / "home"
    opened = campaign()
    await record(database, opened, job(opened["id"]))
    await sealed_log(database, home)
    dumping = asyncio.Event()

    async def load() -> None:
        while not dumping.is_set():
            await record(database, *(cost(campaign_id=opened["id"]) for _ in range(20)))

    writer = asyncio.create_task(load())
    await run_client("pg_dump", "--format=custom", f"--file={dump}", plain(database_url))
    dumping.set()
    await writer
    last = await value(database, "SELECT position FROM ledger.log_head")

    name = f"{database_url.database}_restored"
    async with empty_database(server_url, name, str(server_url.username)) as restored:
        target = f"--dbname={plain(restored)}"
        await run_client("pg_restore", "--exit-on-error", "--single-transaction", target, str(dump))
        verified = await ledger("verify", "--home", home, database=restored, LEDGER_LOG_ORIGIN=ORIGIN)
        other = Database(restored)
        events = await stored(other)
        await record(other, cost(campaign_id=opened["id"]))
        await other.close()

    assert (verified.code, verified.err) == (0, "")
    assert 302 <= len(events) <= last
    assert events == (await stored(database))[: len(events)]


async def test_a_dump_restored_without_the_roles_works_and_closes_public_access(
    server_url: URL, database_url: URL, database: Database, tmp_path: Path
) -> None:
    dump = tmp_path / "ledger.dump"
    await record(database, *(cost() for _ in range(30)))
    await run_client("pg_dump", "--format=custom", f"--file={dump}", plain(database_url))
    owner = f"restorer_{database_url.database}"
    await administer(server_url, f"CREATE ROLE {owner} LOGIN PASSWORD 'secret'")

    async with empty_database(server_url, f"{database_url.database}_plain", owner) as restored:
        restored = restored.set(username=owner, password="secret")
        flags = ("--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges")
        await run_client("pg_restore", *flags, f"--dbname={plain(restored)}", str(dump))
        other = Database(restored)
        await query(other, "CALL ledger.grant_roles()")
        public = await value(other, "SELECT has_function_privilege('public', 'ledger.erase_text(bigint)', 'EXECUTE')")
        service = await value(other, "SELECT has_table_privilege('ledger_service', 'ledger.events', 'INSERT')")
        await fold_everything(other)
        verified = await ledger("verify", database=restored)
        found, events = await tables(other), await stored(other)
        await other.close()
    await administer(server_url, f"DROP ROLE {owner}")

    assert verified.code == 0, verified.err
    assert (public, service) == (False, True)
    assert len(events) == 30
    assert found == folded(events)


async def test_verify_reports_a_restored_dump_that_is_older_than_the_checkpoint(
    server_url: URL, database_url: URL, database: Database, tmp_path: Path
) -> None:
    dump, home = tmp_path / "ledger.dump", tmp_path / "home"
    await run_client("pg_dump", "--format=custom", f"--file={dump}", plain(database_url))
    await sealed_log(database, home)

    async with empty_database(server_url, f"{database_url.database}_old", str(server_url.username)) as restored:
        await run_client("pg_restore", "--exit-on-error", f"--dbname={plain(restored)}", str(dump))
        verified = await ledger("verify", "--home", home, database=restored, LEDGER_LOG_ORIGIN=ORIGIN)

    assert verified.code == 1
    assert "300 events were signed, but the log has 0" in verified.out
