"""Key files and the home: who may read them, and what survives a power failure."""

import os
import stat
from pathlib import Path

import pytest
from sqlalchemy import URL

from ledger.audit.home import store_admin_key
from ledger.audit.signing_files import SigningFiles
from ledger.cli import up
from ledger.cli.key_files import exposures, warn_of_exposures
from ledger.config import Settings
from ledger.database import Database
from ledger.embedded import exclusive_home
from ledger.keys import list_keys
from tests.cli.helpers import ledger


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_home_and_its_key_files_belong_to_their_owner_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with exclusive_home(home, "test"):
        SigningFiles(home, None, "test.example/log").make_signer()
        store_admin_key(home, "key")

    # If root starts the embedded PostgreSQL, the user that runs it has to pass through the home.
    assert mode_of(home) == (0o711 if os.geteuid() == 0 else 0o700)
    assert [mode_of(home / name) for name in ("log.key", "admin.key")] == [0o600, 0o600]
    assert exposures(Settings(home=home)) == []


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660, 0o606])
def test_key_files_that_others_can_read_are_remarked(tmp_path: Path, mode: int) -> None:
    home, key = tmp_path / "home", tmp_path / "log.key"
    home.mkdir(0o755)
    for file in (key, home / "admin.key"):
        file.touch()
        file.chmod(mode)

    remarks = exposures(Settings(home=home, log_key=key))

    assert [remark.split(": run ")[1] for remark in remarks] == [
        f"`chmod 600 {key}`",
        f"`chmod 600 {home / 'admin.key'}`",
        f"`chmod go-rw {home}`",
    ]


def test_the_start_of_a_service_remarks_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "admin.key").touch()
    (tmp_path / "admin.key").chmod(0o644)

    warn_of_exposures(Settings(home=tmp_path))

    assert capsys.readouterr().err.startswith("Warning: other users can read or change ")


async def test_doctor_remarks_them(tmp_path: Path, database_url: URL) -> None:
    (tmp_path / "admin.key").touch()
    (tmp_path / "admin.key").chmod(0o644)

    found = await ledger("doctor", "--home", tmp_path, database=database_url)

    assert f"WARNING  key files: other users can read or change {tmp_path / 'admin.key'}" in found.out


async def test_the_admin_key_is_on_disk_before_its_row_is_committed(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    committed: list[int] = []
    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        real_fsync(descriptor)
        synced.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")

    def fail_after_the_file(folder: Path, text: str) -> Path:
        store_admin_key(folder, text)
        raise OSError("power failure")

    monkeypatch.setattr(os, "fsync", fsync)
    with monkeypatch.context() as patch:
        patch.setattr(up, "store_admin_key", fail_after_the_file)
        with pytest.raises(OSError, match="power failure"):
            await up._create_admin_key(database, tmp_path)
    async with database.connection() as connection:
        committed.append(len(await list_keys(connection)))
    await up._create_admin_key(database, tmp_path)
    async with database.connection() as connection:
        committed.append(len(await list_keys(connection)))

    assert synced == ["file", "folder"] * 2
    assert committed == [0, 1]
    assert (tmp_path / "admin.key").read_text().startswith("lgr_")
