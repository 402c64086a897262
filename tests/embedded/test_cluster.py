"""The data folder, with real processes: first start, recovery, ports, pids, settings, authentication."""

import asyncio
import importlib.util
import os
import signal
import socket
import subprocess
from pathlib import Path

import asyncpg
import pytest

from ledger.embedded import EmbeddedError, EmbeddedServer, cluster, installed_binaries

from .helpers import ServerUser, fetch, running, stop, wait_until


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2].partition("/")[0])


@pytest.mark.parametrize(
    "milestone", ["password", "initialising-*/data/base", "data/postmaster.pid", "data/base/1638?"]
)
async def test_a_first_start_that_was_killed_is_repeated(new_home: Path, milestone: str) -> None:
    user = ServerUser(new_home)
    wait_until(lambda: any((new_home / "postgres").glob(milestone)))
    user.kill()

    with EmbeddedServer.acquire(new_home) as server:
        assert await fetch(server.url, "SELECT current_database()") == "ledger"
    # Only at the next start: an initdb that outlived the kill may still be writing during the first.
    with EmbeddedServer.acquire(new_home):
        assert not list((new_home / "postgres").glob("initialising-*"))


async def test_a_missing_database_is_created_again(home: Path) -> None:
    with EmbeddedServer.acquire(home) as first:
        await fetch(first.url.removesuffix("ledger") + "postgres", "DROP DATABASE ledger")

        with EmbeddedServer.acquire(home) as second:
            assert await fetch(second.url, "SELECT current_database()") == "ledger"


async def test_another_port_is_chosen_if_the_previous_one_is_in_use(home: Path) -> None:
    previous = int((home / "postgres" / "port").read_text())

    with socket.create_server(("127.0.0.1", previous)), EmbeddedServer.acquire(home) as server:
        assert port_of(server.url) != previous
        assert await fetch(server.url, "SELECT 1") == 1


async def test_a_port_that_is_taken_before_the_server_binds_it_is_replaced(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_port = cluster._free_port
    with socket.create_server(("127.0.0.1", 0)) as occupant:
        choices = iter([occupant.getsockname()[1]])
        monkeypatch.setattr(cluster, "_free_port", lambda preferred: next(choices, None) or free_port(preferred))

        with EmbeddedServer.acquire(home) as server:
            assert await fetch(server.url, "SELECT 1") == 1


async def test_a_killed_postgresql_recovers_its_committed_data(home: Path) -> None:
    first = EmbeddedServer.acquire(home)
    await fetch(first.url, "CREATE TABLE committed AS SELECT 42 AS answer")
    os.kill(first.pid, signal.SIGKILL)

    with EmbeddedServer.acquire(home) as second:
        first.release()
        assert second.pid != first.pid
        assert await fetch(second.url, "SELECT answer FROM committed") == 42


async def test_a_start_waits_for_a_session_that_outlives_the_killed_postgresql(home: Path) -> None:
    first = EmbeddedServer.acquire(home)
    session = await asyncpg.connect(first.url)
    long_query = asyncio.create_task(session.fetchval("SELECT count(*) FROM generate_series(1, 10000000)"))
    await asyncio.sleep(0.3)
    os.kill(first.pid, signal.SIGKILL)

    with await asyncio.to_thread(EmbeddedServer.acquire, home) as second:
        first.release()
        assert await fetch(second.url, "SELECT 1") == 1
    await asyncio.gather(long_query, return_exceptions=True)
    session.terminate()


@pytest.mark.parametrize("other", ["a process of the server's user", "another postgresql", "no process"])
async def test_a_pid_file_that_names_another_process_is_ignored(
    home: Path, other: str, shared: tuple[Path, EmbeddedServer]
) -> None:
    stopped = EmbeddedServer.acquire(home)
    pid_file = home / "postgres" / "data" / "postmaster.pid"
    owner, lines = pid_file.stat(), pid_file.read_text().splitlines()[1:]
    stop(home)
    # The same user as the server: PostgreSQL refuses to start only for such a pid.
    sleeper = subprocess.Popen(["sleep", "600"], user=owner.st_uid, cwd="/")
    pid = {"a": sleeper.pid, "another": shared[1].pid}.get(other.split()[0])
    pid_file.write_text("\n".join([str(pid), *lines]) if pid else "")
    os.chown(pid_file, owner.st_uid, owner.st_gid)

    try:
        stopped.release()
        with EmbeddedServer.acquire(home) as server:
            assert server.pid == running(home)
            assert await fetch(server.url, "SELECT 1") == 1
        assert (sleeper.poll(), await fetch(shared[1].url, "SELECT 1")) == (None, 1)
    finally:
        sleeper.kill()
        sleeper.wait()


def test_ctrl_c_on_the_service_does_not_reach_postgresql(shared: tuple[Path, EmbeddedServer]) -> None:
    assert os.getsid(shared[1].pid) != os.getsid(0)


@pytest.mark.parametrize("database", ["ledger", "postgres", "template1"])
async def test_no_connection_succeeds_without_the_password(shared: tuple[Path, EmbeddedServer], database: str) -> None:
    for password in ("wrong", ""):
        with pytest.raises(asyncpg.InvalidPasswordError):
            await fetch(shared[1].url, "SELECT 1", password=password, database=database)


async def test_every_rule_of_the_server_requires_scram(shared: tuple[Path, EmbeddedServer]) -> None:
    methods = await fetch(shared[1].url, "SELECT array_agg(DISTINCT auth_method) FROM pg_hba_file_rules")

    assert methods == ["scram-sha-256"]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *[("fsync", "on"), ("synchronous_commit", "on"), ("full_page_writes", "on"), ("data_checksums", "on")],
        *[("listen_addresses", "127.0.0.1"), ("unix_socket_directories", ""), ("max_connections", "200")],
        *[("server_encoding", "UTF8"), ("TimeZone", "UTC"), ("log_timezone", "UTC"), ("max_wal_size", "2GB")],
        ("search_path", "public"),
    ],
)
async def test_a_setting_has_the_value_that_the_ledger_needs(
    shared: tuple[Path, EmbeddedServer], setting: str, value: str
) -> None:
    assert await fetch(shared[1].url, f"SELECT current_setting('{setting}')") == value


async def test_the_database_uses_the_builtin_unicode_locale(shared: tuple[Path, EmbeddedServer]) -> None:
    locale = "SELECT concat(datlocprovider, datlocale) FROM pg_database WHERE datname = 'ledger'"

    assert await fetch(shared[1].url, locale) == "bC.UTF-8"


def test_a_start_that_fails_shows_the_end_of_the_server_log(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cluster.SERVER_SETTINGS, "no_such_setting", "1")

    with pytest.raises(EmbeddedError, match='unrecognized configuration parameter "no_such_setting"'):
        EmbeddedServer.acquire(home)


def test_a_wrong_password_file_is_reported_at_once(home: Path) -> None:
    password = home / "postgres" / "password"
    correct = password.read_text()
    with EmbeddedServer.acquire(home):
        password.write_text("of-another-server")
        try:
            with pytest.raises(EmbeddedError, match="refuses the password"):
                EmbeddedServer.acquire(home)
        finally:
            password.write_text(correct)


def test_a_server_log_that_is_too_large_is_truncated_at_the_start(home: Path) -> None:
    os.truncate(home / "postgres" / "log", cluster.LOG_BYTES_MAX + 1)

    with EmbeddedServer.acquire(home):
        assert (home / "postgres" / "log").stat().st_size < 10_000


def test_a_path_that_a_shell_would_execute_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match="use a path without"):
        EmbeddedServer.acquire(tmp_path / "$(reboot)")


def test_if_the_wheel_is_missing_the_error_names_database_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(EmbeddedError, match="set DATABASE_URL"):
        installed_binaries()
