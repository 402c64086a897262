"""`ledger doctor` tells each failed connection apart, in words for someone who has not seen it before."""

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
    """The doctor's findings."""
    found = await examine_databases(read_settings({"DATABASE_URL": plain(database), **settings}, Path("/nowhere")))
    assert SECRET not in str(found)
    return found


async def complaint(database: URL, **settings: str) -> str:
    """What the doctor finds, which must be a problem."""
    found = [check.says for check in await doctor(database, **settings) if check.verdict == "problem"]
    assert found
    return "\n".join(found)


async def test_a_server_that_refuses_is_told_from_a_host_that_is_not_known(plain_server: PostgreSQL) -> None:
    assert "nothing answers at the database's host and port" in await complaint(plain_server.url.set(port=1))
    unknown = await complaint(plain_server.url.set(host="nowhere.invalid"))
    assert "host is not known" in unknown
    assert "paused project" in unknown


async def test_a_wrong_password_says_how_to_write_one(plain_server: PostgreSQL, pooler: URL) -> None:
    for url in (plain_server.url, pooler):
        said = await complaint(url.set(password=SECRET))

        assert "refuses the user or the password" in said
        assert "percent-encode" in said


async def test_a_server_that_wants_tls_says_the_word_to_add(tls_url: URL) -> None:
    said = await complaint(tls_url.set(query={"sslmode": "disable"}))

    assert "without TLS; add ?sslmode=require" in said


async def test_a_server_without_tls_is_told_where_tls_is_asked_for(plain_server: PostgreSQL) -> None:
    said = await complaint(plain_server.url.set(query={"sslmode": "require"}))

    assert "the server does not speak TLS" in said


async def test_a_certificate_nobody_vouches_for_is_told_from_one_for_another_host(tls_url: URL, tmp_path: Path) -> None:
    stranger = str(Authority(tmp_path, "stranger").certificate)

    unknown = await complaint(tls_url.set(query={"sslmode": "verify-full", "sslrootcert": stranger}))
    another = await complaint(tls_url.set(host="localhost"))
    missing = await complaint(tls_url.set(query={"sslmode": "verify-full", "sslrootcert": "/nowhere.crt"}))

    assert "sslrootcert=FILE" in unknown
    assert "certificate is for another host" in another
    assert "sslrootcert /nowhere.crt cannot be used" in missing


async def test_a_database_without_tables_says_to_migrate(plain_server: PostgreSQL) -> None:
    assert "run `ledger migrate`" in await complaint(plain_server.url)


async def test_a_paused_server_is_given_up_in_time(plain_server: PostgreSQL) -> None:
    postmaster = psutil.Process(plain_server.pid)
    postmaster.suspend()
    try:
        async with asyncio.timeout(20):
            said = await complaint(plain_server.url.set(query={"connect_timeout": "1"}))
    finally:
        postmaster.resume()

    assert "does not answer in time; a paused project has to be resumed" in said


@asynccontextmanager
async def answering(code: str, message: str) -> AsyncIterator[URL]:
    """A server that refuses everybody as a hosted one does."""
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
async def test_what_hosted_databases_say_is_put_into_words(code: str, message: str, words: str) -> None:
    async with answering(code, message) as url:
        said = await complaint(url)

    assert words in said
    assert message in said


async def test_a_pooler_whose_server_is_away_is_given_up_in_time(plain_server: PostgreSQL) -> None:
    with pgbouncer(plain_server.url.set(port=1)) as url:
        said = await complaint(url.set(query={"connect_timeout": "2"}))

    assert "a server behind a pooler started" in said


async def test_a_pooler_without_a_direct_way_beside_it_is_a_problem_and_with_one_is_none(
    pooled: URL, migrated: URL
) -> None:
    alone = await complaint(pooled)
    twice = await complaint(pooled, DIRECT_DATABASE_URL=plain(pooled.set(query={"pgbouncer": "true"})))
    beside = await doctor(pooled, DIRECT_DATABASE_URL=plain(migrated))

    assert "set DIRECT_DATABASE_URL to the server itself" in alone
    assert "DIRECT_DATABASE_URL leads to a pooler in transaction mode too" in twice
    # The user of the tests' server is its superuser.
    assert {check.name for check in beside if check.verdict != "ok"} == {"user"}
    assert "direct connection" in {check.name for check in beside}


async def test_a_replica_that_is_none_or_is_away_is_a_problem(migrated: URL) -> None:
    none = await complaint(migrated, REPLICA_DATABASE_URL=plain(migrated))
    away = await complaint(migrated, REPLICA_DATABASE_URL=plain(migrated.set(port=1)))

    assert "leads to a server that is no replica" in none
    assert "nothing answers" in away


async def test_the_command_itself_ends_with_words_and_no_traceback(tls_url: URL) -> None:
    said = await ledger("migrate", database=plain(tls_url.set(query={"sslmode": "disable"})))

    assert (said.code, "add ?sslmode=require" in said.err, "Traceback" in said.err) == (1, True, False)
