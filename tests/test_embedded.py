"""The embedded server, against real processes: what starts, dies, is adopted, and who may connect.

Every home here lies below pytest's own folder, which is 0700: for root, the case of a home in /root.
"""

import asyncio
import importlib.util
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from ledger import embedded
from ledger.embedded import EmbeddedError, EmbeddedServer, exclusive_home, installed_binaries

REPOSITORY = Path(__file__).parents[1]
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: needs root, to become another user")

# Imports come first: another user may not be able to read the interpreter's own modules.
HOLDER = """
import os, sys
from pathlib import Path
from ledger.embedded import EmbeddedError, EmbeddedServer
if len(sys.argv) > 2:
    os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
try:
    server = EmbeddedServer.acquire(Path(sys.argv[1]))
except EmbeddedError as error:
    sys.exit(f"EmbeddedError: {error}")
print(server.pid, server.url, flush=True)
sys.stdin.readline()
server.release()
"""


class Holder:
    """Another process that uses the server until told to release it."""

    def __init__(self, home: Path, *uid: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(home), *map(str, uid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )

    def server(self) -> tuple[int, str]:
        assert self.process.stdout is not None
        pid, url = self.process.stdout.readline().split()
        return int(pid), url

    def release(self) -> None:
        self.process.communicate("\n", timeout=60)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=60)

    def complaint(self) -> str:
        return self.process.communicate(timeout=60)[1]


@contextmanager
def stopped_afterwards(home: Path) -> Iterator[Path]:
    try:
        yield home
    finally:
        if pid := running(home):
            os.kill(pid, signal.SIGINT)
            with suppress(psutil.TimeoutExpired):
                psutil.Process(pid).wait(30)
        # pytest keeps three runs of tmp_path; a home fills tens of megabytes.
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    with stopped_afterwards(tmp_path / "home"):
        yield tmp_path / "home"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, EmbeddedServer]]:
    """One server for the tests that only look at it."""
    with stopped_afterwards(tmp_path_factory.mktemp("shared") / "home") as home, EmbeddedServer.acquire(home) as server:
        yield home, server


def running(home: Path) -> int | None:
    """The pid of the PostgreSQL of this home, found without the code under test."""
    for process in psutil.process_iter(["name", "cmdline"]):
        if process.info["name"] == "postgres" and str(home / "postgres" / "data") in (process.info["cmdline"] or ()):
            return process.pid
    return None


async def fetch(url: str, query: str, **connection: Any) -> Any:
    connected = await asyncpg.connect(url, **connection)
    try:
        return await connected.fetchval(query)
    finally:
        await connected.close()


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2].partition("/")[0])


def everything_of(folder: Path) -> list[Path]:
    return [folder, *folder.rglob("*")]


async def test_a_new_home_gets_a_server_that_answers_asyncpg_and_psql(home: Path) -> None:
    with EmbeddedServer.acquire(home) as server:
        by_asyncpg = await fetch(server.url, "SELECT 1")
        by_psql = subprocess.run(
            [installed_binaries() / "psql", "-XAt", "-c", "SELECT current_database()", server.url],
            capture_output=True,
            text=True,
        )

        assert (by_asyncpg, by_psql.stdout, server.pid) == (1, "ledger\n", running(home))


async def test_data_and_port_survive_release_and_acquire(home: Path) -> None:
    with EmbeddedServer.acquire(home) as first:
        await fetch(first.url, "CREATE TABLE kept AS SELECT 42 AS answer")
    assert running(home) is None

    with EmbeddedServer.acquire(home) as second:
        assert await fetch(second.url, "SELECT answer FROM kept") == 42
        assert (second.url, second.pid != first.pid) == (first.url, True)


async def test_another_port_is_picked_when_the_kept_one_is_taken(home: Path) -> None:
    with EmbeddedServer.acquire(home) as first:
        port = port_of(first.url)

    with socket.create_server(("127.0.0.1", port)), EmbeddedServer.acquire(home) as second:
        assert port_of(second.url) != port
        assert await fetch(second.url, "SELECT 1") == 1


async def test_a_port_taken_between_choosing_and_binding_is_replaced(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_port = embedded._free_port
    with socket.create_server(("127.0.0.1", 0)) as thief:
        choices = iter([thief.getsockname()[1]])
        monkeypatch.setattr(embedded, "_free_port", lambda preferred: next(choices, None) or free_port(preferred))

        with EmbeddedServer.acquire(home) as server:
            assert await fetch(server.url, "SELECT 1") == 1


async def test_a_server_outlives_its_killed_user_and_is_adopted(home: Path) -> None:
    holder = Holder(home)
    pid, url = holder.server()
    holder.kill()
    assert running(home) == pid

    with EmbeddedServer.acquire(home) as adopted:
        assert (adopted.pid, adopted.url) == (pid, url)
        assert await fetch(adopted.url, "SELECT 1") == 1
    assert running(home) is None


async def test_a_killed_postgresql_is_recovered_with_what_it_had_committed(home: Path) -> None:
    first = EmbeddedServer.acquire(home)
    await fetch(first.url, "CREATE TABLE kept AS SELECT 42 AS answer")
    os.kill(first.pid, signal.SIGKILL)

    with EmbeddedServer.acquire(home) as second:
        first.release()
        assert second.pid != first.pid
        assert await fetch(second.url, "SELECT answer FROM kept") == 42


async def test_a_session_that_outlives_the_killed_postgresql_is_waited_for(home: Path) -> None:
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


def test_a_server_that_never_answers_ends_in_an_error_that_names_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "WAIT_SECONDS_MAX", 6)
    with EmbeddedServer.acquire(home) as server:
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(EmbeddedError, match=rf"process {server.pid}\) runs but did not answer"):
                EmbeddedServer.acquire(home)
        finally:
            os.kill(server.pid, signal.SIGCONT)


def test_releasing_a_server_that_was_killed_is_no_error(home: Path) -> None:
    server = EmbeddedServer.acquire(home)
    os.kill(server.pid, signal.SIGKILL)

    server.release()
    server.release()

    assert running(home) is None


@pytest.mark.parametrize("stranger", ["a process of the server's user", "another postgresql", "nobody"])
async def test_a_pid_file_that_names_a_stranger_is_not_believed(
    home: Path, stranger: str, shared: tuple[Path, EmbeddedServer]
) -> None:
    with EmbeddedServer.acquire(home):
        pid_file = home / "postgres" / "data" / "postmaster.pid"
        owner, lines = pid_file.stat(), pid_file.read_text().splitlines()[1:]
    # Run by the server's own user: only such a pid makes PostgreSQL itself refuse.
    sleeper = subprocess.Popen(["sleep", "600"], user=owner.st_uid, cwd="/")
    pid = {"a": sleeper.pid, "another": shared[1].pid}.get(stranger.split()[0])
    pid_file.write_text("\n".join([str(pid), *lines]) if pid else "")
    os.chown(pid_file, owner.st_uid, owner.st_gid)

    try:
        with EmbeddedServer.acquire(home) as server:
            assert server.pid == running(home)
            assert await fetch(server.url, "SELECT 1") == 1
        assert (sleeper.poll(), psutil.pid_exists(shared[1].pid)) == (None, True)
    finally:
        sleeper.kill()
        sleeper.wait()


async def test_two_processes_at_once_share_one_server_and_the_last_stops_it(home: Path) -> None:
    one, other = Holder(home), Holder(home)
    (pid, url), (same_pid, same_url) = one.server(), other.server()
    assert (pid, url) == (same_pid, same_url)

    one.release()
    assert running(home) == pid
    assert await fetch(url, "SELECT 1") == 1

    other.release()
    assert running(home) is None


async def test_a_release_never_stops_a_server_that_another_process_just_acquired(home: Path) -> None:
    for _ in range(4):
        leaving, coming = EmbeddedServer.acquire(home), Holder(home)
        time.sleep(0.15)
        leaving.release()
        _, url = coming.server()
        assert await fetch(url, "SELECT 1") == 1
        coming.release()


def test_an_acquire_waits_for_a_server_that_is_stopping_and_starts_it_again(home: Path) -> None:
    first = EmbeddedServer.acquire(home)
    os.kill(first.pid, signal.SIGINT)

    with EmbeddedServer.acquire(home) as second:
        first.release()
        assert running(home) == second.pid != first.pid


def test_ctrl_c_on_the_service_does_not_reach_postgresql(shared: tuple[Path, EmbeddedServer]) -> None:
    assert os.getsid(shared[1].pid) != os.getsid(0)


@pytest.mark.parametrize(
    "milestone", ["password", "initialising-*/data/base", "data", "data/postmaster.pid", "data/base/1638?"]
)
async def test_a_first_start_killed_midway_is_redone(home: Path, milestone: str) -> None:
    holder, deadline = Holder(home), time.monotonic() + 30
    while not list((home / "postgres").glob(milestone)):
        assert time.monotonic() < deadline
    holder.kill()

    with EmbeddedServer.acquire(home) as server:
        assert await fetch(server.url, "SELECT current_database()") == "ledger"
    # By the next start: an initdb that outlived the kill may still write into its folder at the first.
    with EmbeddedServer.acquire(home):
        assert not list((home / "postgres").glob("initialising-*"))


async def test_a_missing_database_is_made_again(home: Path) -> None:
    with EmbeddedServer.acquire(home) as first:
        await fetch(first.url.removesuffix("ledger") + "postgres", "DROP DATABASE ledger")

    with EmbeddedServer.acquire(home) as second:
        assert await fetch(second.url, "SELECT current_database()") == "ledger"


@pytest.mark.parametrize("database", ["ledger", "postgres", "template1"])
async def test_nobody_enters_without_the_password(shared: tuple[Path, EmbeddedServer], database: str) -> None:
    for password in ("wrong", ""):
        with pytest.raises(asyncpg.InvalidPasswordError):
            await fetch(shared[1].url, "SELECT 1", password=password, database=database)


async def test_no_rule_of_the_server_trusts_anybody(shared: tuple[Path, EmbeddedServer]) -> None:
    methods = await fetch(shared[1].url, "SELECT array_agg(DISTINCT auth_method) FROM pg_hba_file_rules")

    assert methods == ["scram-sha-256"]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *[("fsync", "on"), ("synchronous_commit", "on"), ("full_page_writes", "on"), ("data_checksums", "on")],
        *[("listen_addresses", "127.0.0.1"), ("unix_socket_directories", ""), ("max_connections", "200")],
        *[("server_encoding", "UTF8"), ("TimeZone", "UTC"), ("log_timezone", "UTC"), ("max_wal_size", "2GB")],
    ],
)
async def test_a_setting_is_as_the_ledger_needs_it(
    shared: tuple[Path, EmbeddedServer], setting: str, value: str
) -> None:
    assert await fetch(shared[1].url, f"SELECT current_setting('{setting}')") == value


async def test_text_is_ordered_by_the_builtin_unicode_locale(shared: tuple[Path, EmbeddedServer]) -> None:
    locale = "SELECT concat(datlocprovider, datlocale) FROM pg_database WHERE datname = 'ledger'"

    assert await fetch(shared[1].url, locale) == "bC.UTF-8"


def test_only_the_owners_can_read_what_the_home_holds(shared: tuple[Path, EmbeddedServer]) -> None:
    home, server = shared
    readable = [path for path in everything_of(home) if path.stat().st_mode & (stat.S_IRWXO & ~stat.S_IXOTH)]
    password = home / "postgres" / "password"

    assert readable == []
    assert (stat.S_IMODE(password.stat().st_mode), password.stat().st_uid) == (0o600, os.geteuid())
    assert stat.S_IMODE((home / "postgres" / "data").stat().st_mode) == 0o700
    assert password.read_text() not in " ".join(psutil.Process(server.pid).cmdline())
    assert password.read_text() not in repr(server) + (home / "postgres" / "log").read_text()


def test_a_second_service_in_a_home_is_refused_and_told_who_holds_it(home: Path) -> None:
    refused = pytest.raises(EmbeddedError, match=rf"process {os.getpid()} \(ledger up\)")
    with exclusive_home(home, "ledger up"), refused, exclusive_home(home, "ledger worker"):
        pass
    with exclusive_home(home, "ledger worker"):
        assert (home / "service.lock").read_text() == f"{os.getpid()} ledger worker\n"


def test_a_server_that_cannot_start_shows_the_end_of_its_log(home: Path) -> None:
    with EmbeddedServer.acquire(home):
        pass
    with (home / "postgres" / "data" / "postgresql.conf").open("a") as settings:
        settings.write("no_such_setting = 1\n")

    with pytest.raises(EmbeddedError, match="no_such_setting"):
        EmbeddedServer.acquire(home)


def test_a_password_file_of_another_server_is_named_at_once(home: Path) -> None:
    with EmbeddedServer.acquire(home):
        (home / "postgres" / "password").write_text("of-another-server")

        with pytest.raises(EmbeddedError, match="refuses the password"):
            EmbeddedServer.acquire(home)


def test_an_overgrown_log_is_emptied_at_the_start(home: Path) -> None:
    with EmbeddedServer.acquire(home):
        pass
    os.truncate(home / "postgres" / "log", embedded.LOG_BYTES_MAX + 1)

    with EmbeddedServer.acquire(home):
        assert (home / "postgres" / "log").stat().st_size < 10_000


def test_a_path_that_a_shell_would_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match="use a path without"):
        EmbeddedServer.acquire(tmp_path / "$(reboot)")


def test_a_missing_wheel_points_to_database_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(EmbeddedError, match="set DATABASE_URL"):
        installed_binaries()


@as_root
async def test_root_opens_a_wheel_installed_for_itself_alone_and_says_so(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    package, site = installed_binaries().parents[1], tmp_path / "site-packages"
    for part in ("pginstall18/bin", "pginstall18/lib", "pginstall18/share"):
        shutil.copytree(package / part, site / package.name / part)
    shutil.copytree(package.with_name(f"{package.name}.libs"), site / f"{package.name}.libs")
    for path in everything_of(site):
        path.chmod(path.stat().st_mode & 0o700)
    binaries = site / package.name / "pginstall18" / "bin"
    monkeypatch.setattr(embedded, "installed_binaries", lambda: binaries)

    with EmbeddedServer.acquire(home) as server:
        assert await fetch(server.url, "SELECT 1") == 1

    assert stat.S_IMODE(site.stat().st_mode) == 0o701
    assert str(site) in caplog.text


@as_root
async def test_data_made_under_another_uid_of_the_system_user_is_taken_over(home: Path) -> None:
    with EmbeddedServer.acquire(home):
        pass
    for path in everything_of(home / "postgres" / "data"):
        os.chown(path, NOBODY, NOBODY)

    with EmbeddedServer.acquire(home) as server:
        assert await fetch(server.url, "SELECT 1") == 1


@as_root
def test_root_without_a_way_to_make_the_system_user_is_told_what_to_do(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "SYSTEM_USER", "ledger-test-nobody-has-this-name")
    monkeypatch.setattr(shutil, "which", lambda name, path: None)

    with pytest.raises(EmbeddedError, match="neither useradd nor adduser"):
        EmbeddedServer.acquire(home)


@pytest.fixture
def home_of_nobody() -> Iterator[Path]:
    closed = [str(path) for path in installed_binaries().parents if not path.stat().st_mode & stat.S_IXOTH]
    if closed:
        pytest.skip(f"NOT TESTED: an ordinary user cannot pass {closed} to reach the wheel")
    # Not below tmp_path: pytest keeps that to root.
    with tempfile.TemporaryDirectory(prefix="ledger-embedded-") as folder:
        os.chown(folder, NOBODY, NOBODY)
        with stopped_afterwards(Path(folder, "home").resolve()) as home:
            yield home


@as_root
async def test_an_ordinary_user_runs_its_own_server(home_of_nobody: Path) -> None:
    holder = Holder(home_of_nobody, NOBODY)
    pid, url = holder.server()

    assert psutil.Process(pid).uids().real == NOBODY
    assert await fetch(url, "SELECT 1") == 1
    assert {path.stat().st_uid for path in everything_of(home_of_nobody)} == {NOBODY}
    assert {path.stat().st_mode & 0o077 for path in everything_of(home_of_nobody)} == {0}

    holder.release()
    assert running(home_of_nobody) is None


@as_root
def test_root_and_an_ordinary_user_are_refused_each_others_home(home: Path, home_of_nobody: Path) -> None:
    Holder(home_of_nobody, NOBODY).release()
    with pytest.raises(EmbeddedError, match="belongs to nobody, and this process runs as root"):
        EmbeddedServer.acquire(home_of_nobody)

    shutil.rmtree(home_of_nobody)
    with EmbeddedServer.acquire(home_of_nobody):
        pass
    complaint = Holder(home_of_nobody, NOBODY).complaint()
    assert "EmbeddedError" in complaint
    assert "belongs to root" in complaint
