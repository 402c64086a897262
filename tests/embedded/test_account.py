"""Users: access that root grants to the user of PostgreSQL, file permissions, and the owner of a home."""

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ledger.embedded import EmbeddedError, EmbeddedServer, account, cluster, exclusive_home, installed_binaries

from .helpers import NOBODY, ServerUser, all_paths, as_root, fetch, removed_at_exit, running


@pytest.fixture
def home_of_nobody() -> Iterator[Path]:
    closed = [str(path) for path in installed_binaries().parents if not path.stat().st_mode & stat.S_IXOTH]
    if closed:
        pytest.skip(f"NOT TESTED: an ordinary user cannot traverse {closed} to reach the wheel")
    # Not inside tmp_path: only root may traverse that.
    with tempfile.TemporaryDirectory(prefix="ledger-embedded-") as folder:
        os.chown(folder, NOBODY, NOBODY)
        with removed_at_exit(Path(folder, "home").resolve()) as home:
            yield home


def test_only_the_owners_can_read_the_files_of_a_home(shared: tuple[Path, EmbeddedServer]) -> None:
    home, server = shared
    readable = [path for path in all_paths(home) if path.stat().st_mode & (stat.S_IRWXO & ~stat.S_IXOTH)]
    password = home / "postgres" / "password"

    assert readable == []
    assert (stat.S_IMODE(password.stat().st_mode), password.stat().st_uid) == (0o600, os.geteuid())
    assert stat.S_IMODE((home / "postgres" / "data").stat().st_mode) == 0o700
    assert password.read_text() not in " ".join(psutil.Process(server.pid).cmdline())
    assert password.read_text() not in repr(server) + (home / "postgres" / "log").read_text()


@as_root
async def test_root_makes_a_wheel_that_only_root_can_read_accessible_and_logs_it(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    package, site = installed_binaries().parents[1], tmp_path / "site-packages"
    for part in ("pginstall18/bin", "pginstall18/lib", "pginstall18/share"):
        shutil.copytree(package / part, site / package.name / part)
    shutil.copytree(package.with_name(f"{package.name}.libs"), site / f"{package.name}.libs")
    for path in all_paths(site):
        path.chmod(path.stat().st_mode & 0o700)
    binaries = site / package.name / "pginstall18" / "bin"
    monkeypatch.setattr(cluster, "installed_binaries", lambda *_: binaries)

    with EmbeddedServer.acquire(home) as server:
        assert await fetch(server.url, "SELECT 1") == 1

    assert stat.S_IMODE(site.stat().st_mode) == 0o701
    assert str(site) in caplog.text


@as_root
async def test_data_of_another_uid_of_the_system_user_changes_owner(home: Path) -> None:
    for path in all_paths(home / "postgres" / "data"):
        os.chown(path, NOBODY, NOBODY)

    with EmbeddedServer.acquire(home) as server:
        assert await fetch(server.url, "SELECT 1") == 1


@as_root
def test_if_the_system_user_cannot_be_created_the_error_names_the_next_step(
    new_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "SYSTEM_USER", "not a user's name")

    with pytest.raises(EmbeddedError, match=r"could not be created: .*not a user's name.*set DATABASE_URL"):
        EmbeddedServer.acquire(new_home)


@as_root
async def test_an_ordinary_user_runs_a_server_that_root_may_not_use(home_of_nobody: Path) -> None:
    user = ServerUser(home_of_nobody, NOBODY)
    pid, url = user.server()

    assert psutil.Process(pid).uids().real == NOBODY
    assert await fetch(url, "SELECT 1") == 1
    assert {path.stat().st_uid for path in all_paths(home_of_nobody)} == {NOBODY}
    assert {path.stat().st_mode & 0o077 for path in all_paths(home_of_nobody)} == {0}
    with pytest.raises(EmbeddedError, match="belongs to nobody, and this process runs as root"):
        EmbeddedServer.acquire(home_of_nobody)

    user.release()
    assert running(home_of_nobody) is None


@as_root
def test_an_ordinary_user_may_not_use_the_home_of_root(home_of_nobody: Path) -> None:
    cluster.Cluster(home_of_nobody)

    output = ServerUser(home_of_nobody, NOBODY).output()

    assert "EmbeddedError" in output
    assert "belongs to root" in output


def test_a_home_where_no_folder_can_be_made_gets_the_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def as_in_proc(*_: object, **__: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(Path, "mkdir", as_in_proc)

    refusal = r"cannot be created: .* Next: choose another home with --home"
    with pytest.raises(EmbeddedError, match=refusal) as refused, exclusive_home(tmp_path / "home", "ledger up"):
        pass
    assert "Errno" not in str(refused.value)


def test_a_home_on_a_read_only_file_system_is_not_blamed_on_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(path: Path, *_: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(os, "open", read_only)

    refused = pytest.raises(EmbeddedError, match="Next: make its file system writable, or choose another home")
    with refused, exclusive_home(tmp_path, "ledger up"):
        pass
