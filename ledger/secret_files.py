"""Files with keys (`log.key`, `admin.key`): written durably, and readable by their owner only."""

import os
import stat
from pathlib import Path


def write_secret(path: Path, text: str, *, replace: bool = False) -> None:
    """Write a file that only its owner may read; once this returns, it survives a power failure.

    Args:
        path: of the file.
        text: its content.
        replace: whether the file may exist.

    Raises:
        FileExistsError: the file exists, and may not be replaced.
    """
    flags = os.O_TRUNC if replace else os.O_EXCL
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o600), "w") as file:
        path.chmod(0o600)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names of new and renamed files in a folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_exposed(path: Path) -> bool:
    """Whether users other than the owner may read or write a file or a folder; False if it does not exist."""
    if os.name != "posix" or not path.exists():
        return False
    return bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH))
