"""Durable files: create or replace a file so that it survives a kill and a power failure."""

import os
import secrets
from pathlib import Path

PRIVATE = 0o600
"""Mode of a file that only its owner may read."""


def replace_file(path: Path, content: bytes, mode: int = PRIVATE) -> None:
    """Replace a file: after a kill or a power failure it has the old or the new content, and here the new one.

    Args:
        path: the file; its folder must exist.
        content: all its bytes.
        mode: its permissions.

    Raises:
        OSError: the file could not be written; the old one is unchanged.
    """
    # A random name: another process may be writing the same file.
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    try:
        _write_new(new, content, mode)
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def create_file(path: Path, content: bytes, mode: int = PRIVATE) -> None:
    """Create a file; an existing one is never overwritten.

    Args:
        path: the file; its folder must exist.
        content: all its bytes.
        mode: its permissions.

    Raises:
        FileExistsError: the file exists already; it is unchanged.
    """
    _write_new(path, content, mode)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names of the files in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_new(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
