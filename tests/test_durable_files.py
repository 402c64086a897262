"""Files that must survive a power failure: the folder is synced after their last name is in it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import make_url

from ledger.audit.export_file import create_export
from ledger.audit.signing_files import SigningFiles
from ledger.durable_files import create_file, replace_file
from ledger.embedded import store_url

ORIGIN = "ledger.example/log"


def write_export(folder: Path) -> None:
    with create_export(folder / "log.ndjson") as write:
        write(b"{}\n")


def archive_checkpoint(folder: Path) -> None:
    files = SigningFiles(folder, None, ORIGIN)
    files.write_checkpoint(b"signed")
    files.archive_checkpoint(ORIGIN, b"signed")


def archive_lost_checkpoint(folder: Path) -> None:
    SigningFiles(folder, None, ORIGIN).archive_checkpoint(ORIGIN, b"signed")


def write_url(folder: Path) -> None:
    store_url(folder.parent, make_url("postgresql://ledger:secret@127.0.0.1:1/ledger"))


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: create_file(folder / "new", b"content"),
        lambda folder: replace_file(folder / "new", b"content"),
        write_export,
        archive_checkpoint,
        archive_lost_checkpoint,
        write_url,
    ],
    ids=["create", "replace", "export", "archive", "lost", "url"],
)
def test_the_folder_is_synced_once_its_names_are_final(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None]
) -> None:
    folder, fsync = tmp_path / "postgres", os.fsync
    folder.mkdir()
    durable: set[str] = set()

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        if os.path.samestat(os.fstat(descriptor), folder.stat()):
            durable.clear()
            durable.update(os.listdir(folder))

    monkeypatch.setattr(os, "fsync", synced)
    write(folder)

    names = {path.name for path in folder.iterdir()}
    assert names
    assert names <= durable
