"""Homes to try the embedded server in: a new one, a used one, and one whose server is running.

They lie below pytest's own folder, which is 0700: for root, the case of a home in /root.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.embedded import EmbeddedServer

from .helpers import removed_afterwards, stop


@pytest.fixture
def new_home(tmp_path: Path) -> Iterator[Path]:
    with removed_afterwards(tmp_path / "home") as home:
        yield home


@pytest.fixture(scope="package")
def used_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with removed_afterwards(tmp_path_factory.mktemp("used") / "home") as home:
        EmbeddedServer.acquire(home).release()
        yield home


@pytest.fixture
def home(used_home: Path) -> Iterator[Path]:
    """A home whose server was made before and does not run; for tests that leave it startable."""
    yield used_home
    stop(used_home)


@pytest.fixture(scope="package")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, EmbeddedServer]]:
    """One server for the tests that leave it as it is."""
    with removed_afterwards(tmp_path_factory.mktemp("shared") / "home") as home, EmbeddedServer.acquire(home) as server:
        yield home, server
