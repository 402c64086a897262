"""A disk of our own that can be full: a tmpfs, which only root can mount. Shrunk to what is on it, it has no room."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

SIZE = 16 * 1024**3
"""A bound, not what it takes: a tmpfs takes of the memory what is on it, here about a gigabyte an hour."""

SHRINK_TRIES = 50


def why_not() -> str | None:
    """Why no disk can be mounted here; None where one can."""
    if sys.platform != "linux":
        return "a tmpfs can be mounted on Linux only"
    if os.geteuid() != 0:
        return "only root can mount a tmpfs"
    if shutil.which("mount") is None:
        return "there is no program `mount`"
    return None


class Disk:
    """A tmpfs on a folder."""

    def __init__(self, folder: Path) -> None:
        """Mount it.

        Raises:
            subprocess.CalledProcessError: it cannot be mounted, as in a container without the right to.
        """
        self._folder = folder
        folder.mkdir()
        try:
            self._mount(f"size={SIZE},mode=0711", "-t", "tmpfs", "tmpfs")
        except subprocess.CalledProcessError:
            folder.rmdir()
            raise

    def fill(self) -> None:
        """Leave no room. What is on it may grow while we look, so this is tried until it fits."""
        for _ in range(SHRINK_TRIES):
            status = os.statvfs(self._folder)
            used = (status.f_blocks - status.f_bfree) * status.f_frsize
            try:
                self._mount(f"remount,size={used}")
            except subprocess.CalledProcessError:
                continue
            return
        raise RuntimeError("the disk could not be filled: it grows too fast")

    def free(self) -> None:
        """Give the room back."""
        self._mount(f"remount,size={SIZE}")

    def unmount(self) -> None:
        """Take it away, with all that is on it."""
        subprocess.run(["umount", "--lazy", self._folder], check=True, capture_output=True)  # noqa: S603, S607

    def _mount(self, options: str, *what: str) -> None:
        subprocess.run(  # noqa: S603
            ["mount", "-o", options, *what, self._folder],  # noqa: S607
            check=True,
            capture_output=True,
        )
