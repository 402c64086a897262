"""`ledger doctor` names the cause of each failed connection, and the next step."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
from sqlalchemy import URL

from ledger.cli.doctor import Check, examine_databases
from ledger.config import read_settings
from tests.cli.helpers import ledger, plain
from tests.servers.certificates import Authority
from tests.servers.pgbouncer import pgbouncer
from tests.servers.postgresql import PostgreSQL

SECRET = "wrong-s3cret"


async def doctor(database: URL, **settings: str) -> list[Check]:
    """Return the checks."""
    checks = await examine_databases(read_settings({"DATABASE_URL": plain(database), **settings}, Path("/nowhere")))
    assert SECRET not in str(checks)
    return checks


async def problem(database: URL, **settings: str) -> str:
    """Return the problems found, of which there must be at least one."""
    problems = [check.says for check in await doctor(database, **settings) if check.verdict == "problem"]
    assert problems
    return "\n".join(problems)


async def test_a_closed_port_and_an_unknown_host_are_distinguished(plain_server: PostgreSQL) -> None:
    assert "nothing answers at the database's host and port" in await problem(plain_server.url.set(port=1))
    unknown = await problem(plain_server.url.set(host="nowhere.invalid"))
    assert "host is not known" in unknown
    assert "paused project" in unknown


async def test_for_a_wrong_password_percent_encoding_is_mentioned(plain_server: PostgreSQL, pooler: URL) -> None:
    for url in (plain_server.url, pooler):
        text = await problem(url.set(password=SECRET))

        assert "refuses the user or the password" in text
        assert "percent-encode" in text


async def test_for_a_server_that_requires_tls_the_option_to_add_is_named(tls_url: URL) -> None:
    text = await problem(tls_url.set(query={"sslmode": "disable"}))

    assert "without TLS; add ?sslmode=require" in text


async def test_a_server_without_tls_is_reported_if_tls_is_required(plain_server: PostgreSQL) -> None:
    text = await problem(plain_server.url.set(query={"sslmode": "require"}))

    assert "the server does not speak TLS" in text


async def test_an_untrusted_certificate_and_one_for_another_host_are_distinguished(
    tls_url: URL, tmp_path: Path
) -> None:
    other_authority = str(Authority(tmp_path, "other").certificate)

    unknown = await problem(tls_url.set(query={"sslmode": "verify-full", "sslrootcert": other_authority}))
    another = await problem(tls_url.set(host="localhost"))
    missing = await problem(tls_url.set(query={"sslmode": "verify-full", "sslrootcert": "/nowhere.crt"}))

    assert "sslrootcert=FILE" in unknown
    assert "certificate is for another host" in another
    assert "sslrootcert /nowhere.crt cannot be used" in missing


async def test_a_database_without_tables_must_be_migrated(plain_server: PostgreSQL) -> None:
    assert "run `ledger migrate`" in await problem(plain_server.url)


async def test_a_suspended_server_leads_to_a_timeout(plain_server: PostgreSQL) -> None:
    postmaster = psutil.Process(plain_server.pid)
    postmaster.suspend()
    try:
        async with asyncio.timeout(20):
            text = await problem(plain_server.url.set(query={"connect_timeout": "1"}))
    finally:
        postmaster.resume()

    assert "does not answer in time; a paused project has to be resumed" in text


@asynccontextmanager
async def answering(code: str, message: str) -> AsyncIterator[URL]:
    """Run a server that refuses every connection with this error, as a hosted one does."""
    fields = f"SFATAL\0VFATAL\0C{code}\0M{message}\0\0".encode()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(4))
        await reader.readexactly(length - 4)
        writer.write(b"E" + (len(fields) + 4).to_bytes(4) + fields)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield URL.create("postgresql+asyncpg", "u", "p", "127.0.0.1", port, "d", {"sslmode": "disable"})


@pytest.mark.parametrize(
    ("code", "message", "words"),
    [
        ("XX000", "Tenant or user not found", "project paused for lack of use has to be restored"),
        ("XX000", "The endpoint has been disabled. Enable it using the API and retry.", "project is paused; resume it"),
        ("08P01", "server login has been failing, try again later", "the pooler answers, but cannot reach"),
        ("57P03", "the database system is starting up", "is starting or stopping"),
        ("53300", "sorry, too many clients already", "takes no more connections"),
    ],
)
async def test_errors_of_hosted_databases_are_explained(code: str, message: str, words: str) -> None:
    async with answering(code, message) as url:
        text = await problem(url)

    assert words in text
    assert message in text


async def test_a_pooler_without_its_server_leads_to_a_timeout(plain_server: PostgreSQL) -> None:
    with pgbouncer(plain_server.url.set(port=1)) as url:
        text = await problem(url.set(query={"connect_timeout": "2"}))

    assert "a server behind a pooler started" in text


async def test_a_pooler_is_a_problem_without_a_direct_connection_and_none_with_one(pooled: URL, migrated: URL) -> None:
    alone = await problem(pooled)
    twice = await problem(pooled, DIRECT_DATABASE_URL=plain(pooled.set(query={"pgbouncer": "true"})))
    with_direct = await doctor(pooled, DIRECT_DATABASE_URL=plain(migrated))

    assert "set DIRECT_DATABASE_URL to the server itself" in alone
    assert "DIRECT_DATABASE_URL leads to a pooler in transaction mode too" in twice
    # The user of the test server is a superuser.
    assert {check.name for check in with_direct if check.verdict != "ok"} == {"user"}
    assert "direct connection" in {check.name for check in with_direct}


async def test_a_replica_url_of_a_primary_or_of_no_server_is_a_problem(migrated: URL) -> None:
    primary = await problem(migrated, REPLICA_DATABASE_URL=plain(migrated))
    unreachable = await problem(migrated, REPLICA_DATABASE_URL=plain(migrated.set(port=1)))

    assert "leads to a server that is no replica" in primary
    assert "nothing answers" in unreachable


async def test_a_command_ends_with_the_explanation_and_no_traceback(tls_url: URL) -> None:
    result = await ledger("migrate", database=plain(tls_url.set(query={"sslmode": "disable"})))

    assert (result.code, "add ?sslmode=require" in result.err, "Traceback" in result.err) == (1, True, False)
