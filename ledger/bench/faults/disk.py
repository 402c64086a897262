"""A disk that can be filled: a tmpfs, which only root can mount, shrunk to its content."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

SIZE_BYTES_MAX = 16 * 1024**3
"""A limit, not a reservation: a tmpfs uses memory only for its content, here about a gigabyte per hour."""

SHRINK_TRIES = 50


def reason_unavailable() -> str | None:
    """Return why no tmpfs can be mounted here, or None if it can."""
    if sys.platform != "linux":
        return "a tmpfs can be mounted on Linux only"
    if os.geteuid() != 0:
        return "only root can mount a tmpfs"
    if shutil.which("mount") is None:
        return "the program `mount` is not installed"
    return None


class Disk:
    """A tmpfs mounted on a new folder."""

    def __init__(self, folder: Path) -> None:
        """Create the folder and mount the tmpfs.

        Raises:
            subprocess.CalledProcessError: it cannot be mounted, as in a container without the privilege.
        """
        self._folder = folder
        folder.mkdir()
        try:
            self._mount(f"size={SIZE_BYTES_MAX},mode=0711", "-t", "tmpfs", "tmpfs")
        except subprocess.CalledProcessError:
            folder.rmdir()
            raise

    def fill(self) -> None:
        """Leave no free space. The content may grow between measuring and shrinking, so this is retried.

        Raises:
            RuntimeError: the content grew each time.
        """
        for _ in range(SHRINK_TRIES):
            status = os.statvfs(self._folder)
            used = (status.f_blocks - status.f_bfree) * status.f_frsize
            try:
                self._mount(f"remount,size={used}")
            except subprocess.CalledProcessError:
                continue
            return
        raise RuntimeError(f"the disk could not be filled in {SHRINK_TRIES} tries: its content grows too fast")

    def free(self) -> None:
        """Restore the free space."""
        self._mount(f"remount,size={SIZE_BYTES_MAX}")

    def unmount(self) -> None:
        """Remove the tmpfs with its content."""
        subprocess.run(["umount", "--lazy", self._folder], check=True, capture_output=True)  # noqa: S603, S607

    def _mount(self, options: str, *arguments: str) -> None:
        subprocess.run(  # noqa: S603
            ["mount", "-o", options, *arguments, self._folder],  # noqa: S607
            check=True,
            capture_output=True,
        )
