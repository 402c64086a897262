"""The key and where it lies: made once, for its owner alone, and shown to nobody."""

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
def home(tmp_path: Path) -> RecordingFiles:
    return RecordingFiles(tmp_path)


async def test_a_home_that_is_not_there_is_made_where_the_key_lies_elsewhere(
    database: Database, tmp_path: Path
) -> None:
    home = SigningFiles(tmp_path / "deep" / "home", tmp_path / "secrets" / "log.key", ORIGIN)
    sealer = await sealer_of(database, home)

    await sealer.seal()

    assert home.checkpoint_file.exists()
    assert not (tmp_path / "deep" / "home" / "log.key").exists()


async def test_a_key_is_made_once_for_its_owner_alone(database: Database, home: RecordingFiles) -> None:
    await sealer_of(database, home)
    text = home.key_file.read_text()
    with pytest.raises(FileExistsError):
        home.make_signer()
    await sealer_of(database, home)

    assert stat.S_IMODE(os.stat(home.key_file).st_mode) == 0o600
    assert home.key_file.read_text() == text


async def test_no_key_is_made_for_a_log_that_is_sealed_elsewhere(
    database: Database, home: RecordingFiles, tmp_path: Path
) -> None:
    await (await sealer_of(database, home)).seal()
    elsewhere = SigningFiles(tmp_path / "elsewhere", None, ORIGIN)

    assert await find_sealer(database, elsewhere, make_key=True) is None
    assert not elsewhere.key_file.exists()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"PRIVATE+KEY+a+00000000+c2VjcmV0", b"-----BEGIN PRIVATE KEY"])
async def test_a_file_that_holds_no_key_is_named_but_not_shown(
    database: Database, home: RecordingFiles, content: bytes
) -> None:
    home.key_file.write_bytes(content)

    with pytest.raises(NoteError) as raised:
        await find_sealer(database, home, make_key=True)

    assert str(home.key_file) in str(raised.value)
    assert "c2VjcmV0" not in str(raised.value)
    assert home.key_file.read_bytes() == content


async def test_a_key_that_cannot_be_read_is_named(database: Database, home: RecordingFiles) -> None:
    home.key_file.mkdir()

    with pytest.raises(NoteError, match=r"log\.key cannot be read"):
        await find_sealer(database, home)


async def test_the_private_key_shows_itself_nowhere(
    database: Database, home: RecordingFiles, caplog: pytest.LogCaptureFixture
) -> None:
    sealer = await sealer_of(database, home)
    secret = home.key_file.read_text().strip().split("+", 4)[4]
    await fill(database, 1)
    caplog.set_level("DEBUG")
    async with served(database, sealer) as client:
        answers = []
        for path in ("/v1/log/key", "/v1/log/checkpoint", "/readyz", "/metrics", "/openapi.json"):
            async with client.get(path) as answer:
                answers.append(await answer.text())

    assert len(secret) == 44
    assert secret not in " ".join(map(repr, (sealer, vars(sealer), home, vars(home), home.read_signer(), home.read())))
    assert secret not in "".join(answers)
    assert secret not in caplog.text
    assert all(secret.encode() not in note for note in home.notes)
    rows = await query(database, "SELECT log_checkpoint::text FROM ledger.log_checkpoint")
    assert secret not in str(rows)


def test_sealers_that_write_at_the_same_moment_leave_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first has lost the lock with its connection, which it has yet to notice."""
    home, fsync = SigningFiles(tmp_path, None, ORIGIN), os.fsync

    def write_another(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", fsync)
        home.write_checkpoint(b"second")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", write_another)
    home.write_checkpoint(b"first and longer")

    assert home.checkpoint_file.read_bytes() == b"first and longer"
    assert list(tmp_path.iterdir()) == [home.checkpoint_file]


def test_a_full_disk_leaves_the_checkpoint_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = SigningFiles(tmp_path, None, ORIGIN)
    home.write_checkpoint(b"before")

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        home.write_checkpoint(b"after")

    assert home.checkpoint_file.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [home.checkpoint_file]
