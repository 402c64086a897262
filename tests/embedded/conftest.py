"""Homes for the embedded server: a new one, a used one, and one with a running server.

They are inside the folder of pytest, which has mode 0700, as a home in /root does.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.embedded import EmbeddedServer

from .helpers import removed_at_exit, stop


@pytest.fixture
def new_home(tmp_path: Path) -> Iterator[Path]:
    with removed_at_exit(tmp_path / "home") as home:
        yield home


@pytest.fixture(scope="package")
def used_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with removed_at_exit(tmp_path_factory.mktemp("used") / "home") as home:
        EmbeddedServer.acquire(home).release()
        yield home


@pytest.fixture
def home(used_home: Path) -> Iterator[Path]:
    """A home whose server exists but does not run; tests must leave it startable."""
    yield used_home
    stop(used_home)


@pytest.fixture(scope="package")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, EmbeddedServer]]:
    """A running server for tests that do not change it."""
    with removed_at_exit(tmp_path_factory.mktemp("shared") / "home") as home, EmbeddedServer.acquire(home) as server:
        yield home, server
