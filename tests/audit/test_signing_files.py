"""Signing files: the key is created once, private, never shown; checkpoints are written atomically."""

import errno
import os
import stat
from pathlib import Path

import pytest

from ledger.audit.note import NoteError
from ledger.audit.sealer import find_sealer
from ledger.audit.signing_files import SigningFiles
from ledger.database import Database
from tests.audit.sealing import ORIGIN, RecordingFiles, fill, sealer_of, served
from tests.log.helpers import query


@pytest.fixture
def files(tmp_path: Path) -> RecordingFiles:
    return RecordingFiles(tmp_path)


async def test_a_missing_folder_is_created_if_the_key_is_in_another_one(database: Database, tmp_path: Path) -> None:
    files = SigningFiles(tmp_path / "deep" / "home", tmp_path / "secrets" / "log.key", ORIGIN)
    sealer = await sealer_of(database, files)

    await sealer.seal()

    assert files.checkpoint_file.exists()
    assert not (tmp_path / "deep" / "home" / "log.key").exists()


async def test_a_key_is_created_once_and_readable_only_by_its_owner(database: Database, files: RecordingFiles) -> None:
    await sealer_of(database, files)
    text = files.key_file.read_text()
    with pytest.raises(FileExistsError):
        files.make_signer()
    await sealer_of(database, files)

    assert stat.S_IMODE(os.stat(files.key_file).st_mode) == 0o600
    assert files.key_file.read_text() == text


async def test_no_key_is_created_for_a_log_that_is_sealed_elsewhere(
    database: Database, files: RecordingFiles, tmp_path: Path
) -> None:
    await (await sealer_of(database, files)).seal()
    elsewhere = SigningFiles(tmp_path / "elsewhere", None, ORIGIN)

    assert await find_sealer(database, elsewhere, make_key=True) is None
    assert not elsewhere.key_file.exists()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"PRIVATE+KEY+a+00000000+c2VjcmV0", b"-----BEGIN PRIVATE KEY"])
async def test_a_file_without_a_key_is_named_but_its_content_is_not_shown(
    database: Database, files: RecordingFiles, content: bytes
) -> None:
    files.key_file.write_bytes(content)

    with pytest.raises(NoteError) as raised:
        await find_sealer(database, files, make_key=True)

    assert str(files.key_file) in str(raised.value)
    assert "c2VjcmV0" not in str(raised.value)
    assert files.key_file.read_bytes() == content


async def test_a_key_file_that_cannot_be_read_is_named(database: Database, files: RecordingFiles) -> None:
    files.key_file.mkdir()

    with pytest.raises(NoteError, match=r"log\.key cannot be read"):
        await find_sealer(database, files)


async def test_the_private_key_is_shown_nowhere(
    database: Database, files: RecordingFiles, caplog: pytest.LogCaptureFixture
) -> None:
    sealer = await sealer_of(database, files)
    secret = files.key_file.read_text().strip().split("+", 4)[4]
    await fill(database, 1)
    caplog.set_level("DEBUG")
    async with served(database, sealer) as client:
        answers = []
        for path in ("/v1/log/key", "/v1/log/checkpoint", "/readyz", "/metrics", "/openapi.json"):
            async with client.get(path) as answer:
                answers.append(await answer.text())

    assert len(secret) == 44
    assert secret not in " ".join(
        map(repr, (sealer, vars(sealer), files, vars(files), files.read_signer(), files.read()))
    )
    assert secret not in "".join(answers)
    assert secret not in caplog.text
    assert all(secret.encode() not in note for note in files.notes)
    rows = await query(database, "SELECT log_checkpoint::text FROM ledger.log_checkpoint")
    assert secret not in str(rows)


def test_sealers_that_write_at_the_same_time_leave_a_complete_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first has lost its connection, and so the lock, but has not noticed yet."""
    files, fsync = SigningFiles(tmp_path, None, ORIGIN), os.fsync

    def write_another(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", fsync)
        files.write_checkpoint(b"second")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", write_another)
    files.write_checkpoint(b"first and longer")

    assert files.checkpoint_file.read_bytes() == b"first and longer"
    assert list(tmp_path.iterdir()) == [files.checkpoint_file]


def test_a_full_disk_leaves_the_checkpoint_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = SigningFiles(tmp_path, None, ORIGIN)
    files.write_checkpoint(b"before")

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        files.write_checkpoint(b"after")

    assert files.checkpoint_file.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [files.checkpoint_file]
