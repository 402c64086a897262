"""Other processes that use a server, and queries about a server without the code under test."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

REPOSITORY = Path(__file__).parents[2]
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: needs root, to become another user")

# Everything is imported first: the other user may not be able to read the modules of the interpreter.
SERVER_USER = """
import os, signal, sys
from pathlib import Path
from ledger.embedded import EmbeddedError, EmbeddedServer
signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
if len(sys.argv) > 2:
    os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
try:
    server = EmbeddedServer.acquire(Path(sys.argv[1]))
except EmbeddedError as error:
    print(f"EmbeddedError: {error}")
    sys.exit(1)
print(server.pid, server.url, flush=True)
sys.stdin.readline()
server.release()
"""


class ServerUser:
    """Another process that uses the server until `release`."""

    def __init__(self, home: Path, *uid: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER_USER, str(home), *map(str, uid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
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

    def output(self) -> str:
        return self.process.communicate(timeout=60)[0]


def running(home: Path) -> int | None:
    """Return the pid of the PostgreSQL of this home, found without the code under test; None if it is not running."""
    for process in psutil.process_iter(["name", "cmdline"]):
        if process.info["name"] == "postgres" and str(home / "postgres" / "data") in (process.info["cmdline"] or ()):
            return process.pid
    return None


def stop(home: Path) -> None:
    if pid := running(home):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
    wait_until(lambda: running(home) is None)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@contextmanager
def removed_at_exit(home: Path) -> Iterator[Path]:
    try:
        yield home
    finally:
        stop(home)
        # pytest keeps three runs of tmp_path; a home fills tens of megabytes.
        shutil.rmtree(home, ignore_errors=True)


async def fetch(url: str, query: str, **connection: Any) -> Any:
    session = await asyncpg.connect(url, **connection)
    try:
        return await session.fetchval(query)
    finally:
        await session.close()


def all_paths(folder: Path) -> list[Path]:
    return [folder, *folder.rglob("*")]
