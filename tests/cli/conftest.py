"""Homes of the embedded PostgreSQL: one with a running service and sample data, others stopped.

The homes are inside pytest's folder of mode 0700, so when root runs the tests they cover the case of a home in /root.
"""

import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from ledger.embedded import EmbeddedServer
from tests.cli.helpers import Running, remove, started


class Demo(NamedTuple):
    """The service as `ledger up --demo` starts it on a new home: one process, with the sample data."""

    home: Path
    running: Running
    url: str
    database_url: str


@pytest.fixture(scope="session")
async def demo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Demo]:
    folder = tmp_path_factory.mktemp("demo")
    home = folder / "home"
    async with started(folder, "up", "--demo", "--port", "0", "--home", home) as running:
        database_url = await running.line("DATABASE_URL=")
        yield Demo(home, running, await running.url(), database_url)
        await running.stop()
    remove(home)


@pytest.fixture(scope="session")
def used_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home whose server was initialised and stopped: copying it is faster than initialising another."""
    home = tmp_path_factory.mktemp("used") / "home"
    EmbeddedServer.acquire(home).release()
    yield home
    remove(home)


@pytest.fixture
def home(used_home: Path, tmp_path: Path) -> Iterator[Path]:
    """A home for one test, with an empty database and a stopped server."""
    home = tmp_path / "home"
    subprocess.run(["cp", "-a", used_home, home], check=True)
    yield home
    remove(home)
    shutil.rmtree(home, ignore_errors=True)
