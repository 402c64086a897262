"""Users: what root opens for PostgreSQL's own, what nobody else may read, and whose home is whose."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ledger.embedded import EmbeddedError, EmbeddedServer, account, cluster, installed_binaries

from .helpers import NOBODY, Holder, as_root, everything_of, fetch, removed_afterwards, running


@pytest.fixture
def home_of_nobody() -> Iterator[Path]:
    closed = [str(path) for path in installed_binaries().parents if not path.stat().st_mode & stat.S_IXOTH]
    if closed:
        pytest.skip(f"NOT TESTED: an ordinary user cannot pass {closed} to reach the wheel")
    # Not below tmp_path: pytest keeps that to root.
    with tempfile.TemporaryDirectory(prefix="ledger-embedded-") as folder:
        os.chown(folder, NOBODY, NOBODY)
        with removed_afterwards(Path(folder, "home").resolve()) as home:
            yield home


def test_only_the_owners_can_read_what_the_home_holds(shared: tuple[Path, EmbeddedServer]) -> None:
    home, server = shared
    readable = [path for path in everything_of(home) if path.stat().st_mode & (stat.S_IRWXO & ~stat.S_IXOTH)]
    password = home / "postgres" / "password"

    assert readable == []
    assert (stat.S_IMODE(password.stat().st_mode), password.stat().st_uid) == (0o600, os.geteuid())
    assert stat.S_IMODE((home / "postgres" / "data").stat().st_mode) == 0o700
    assert password.read_text() not in " ".join(psutil.Process(server.pid).cmdline())
    assert password.read_text() not in repr(server) + (home / "postgres" / "log").read_text()


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
    monkeypatch.setattr(cluster, "installed_binaries", lambda: binaries)

    with EmbeddedServer.acquire(home) as server:
        assert await fetch(server.url, "SELECT 1") == 1

    assert stat.S_IMODE(site.stat().st_mode) == 0o701
    assert str(site) in caplog.text


@as_root
async def test_data_made_under_another_uid_of_the_system_user_is_taken_over(home: Path) -> None:
    for path in everything_of(home / "postgres" / "data"):
        os.chown(path, NOBODY, NOBODY)

    with EmbeddedServer.acquire(home) as server:
        assert await fetch(server.url, "SELECT 1") == 1


@as_root
def test_root_whose_system_user_cannot_be_made_is_told_what_to_do(
    new_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "SYSTEM_USER", "not a user's name")

    with pytest.raises(EmbeddedError, match=r"could not be made: .*not a user's name.*set DATABASE_URL"):
        EmbeddedServer.acquire(new_home)


@as_root
async def test_an_ordinary_user_runs_its_own_server_which_root_is_refused(home_of_nobody: Path) -> None:
    holder = Holder(home_of_nobody, NOBODY)
    pid, url = holder.server()

    assert psutil.Process(pid).uids().real == NOBODY
    assert await fetch(url, "SELECT 1") == 1
    assert {path.stat().st_uid for path in everything_of(home_of_nobody)} == {NOBODY}
    assert {path.stat().st_mode & 0o077 for path in everything_of(home_of_nobody)} == {0}
    with pytest.raises(EmbeddedError, match="belongs to nobody, and this process runs as root"):
        EmbeddedServer.acquire(home_of_nobody)

    holder.release()
    assert running(home_of_nobody) is None


@as_root
def test_an_ordinary_user_is_refused_the_home_of_root(home_of_nobody: Path) -> None:
    cluster.Cluster(home_of_nobody)

    complaint = Holder(home_of_nobody, NOBODY).complaint()

    assert "EmbeddedError" in complaint
    assert "belongs to root" in complaint
