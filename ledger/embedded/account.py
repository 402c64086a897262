"""The user that PostgreSQL runs as when root starts it, what that user may touch, and whose a home is."""

import logging
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from ledger.embedded.errors import EmbeddedError

if sys.platform != "win32":
    import pwd

SYSTEM_USER = "ledger-postgres"
MAKE_USER = """
    PATH="$PATH:/usr/sbin:/sbin"
    exec useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$0"
"""

_log = logging.getLogger("ledger.embedded")


class Account(NamedTuple):
    """A system user. PostgreSQL refuses to run as root."""

    name: str
    uid: int
    gid: int

    def take(self, path: Path) -> None:
        """Own a file or a folder. One made in another container may belong to another uid of the same name."""
        if path.stat().st_uid == self.uid:
            return
        # From the leaves up: the folder itself last, so that a kill midway is seen and redone.
        for part in reversed([path, *path.rglob("*")]):
            os.chown(part, self.uid, self.gid, follow_symlinks=False)

    def open_the_way(self, installation: Path, folder: Path) -> None:
        """Let this user pass to its data and programs: x on the way, never r, and the programs as their owner may."""
        for parent in sorted({*installation.parents, *folder.parents, folder}):
            if self._grant(parent, stat.S_IXOTH):
                _log.warning("%s: PostgreSQL's user %s may now pass through it, not list it", parent, self.name)
        # The wheel's shared libraries lie beside its package, not in it.
        libraries = installation.parent.with_name(f"{installation.parent.name}.libs")
        opened = 0
        for top in (installation, libraries):
            for parent_name, _, files in os.walk(top):
                for path in (Path(parent_name), *(Path(parent_name, file) for file in files)):
                    opened += self._grant(path, path.stat().st_mode >> 6 & (stat.S_IROTH | stat.S_IXOTH))
        if opened:
            _log.warning("%s: %d files and folders are now readable to %s", installation, opened, self.name)

    def _grant(self, path: Path, bits: int) -> bool:
        """Add the bits where the account lacks them. Returns whether any were missing."""
        status = path.stat()
        shift = 6 if status.st_uid == self.uid else 3 if status.st_gid == self.gid else 0
        missing = (bits << shift) & ~status.st_mode
        if missing:
            path.chmod(stat.S_IMODE(status.st_mode) | missing)
        return bool(missing)


def system_account() -> Account:
    """The account of SYSTEM_USER, which is made when it is missing."""
    try:
        return _existing_account()
    except KeyError:
        command = ["/bin/sh", "-c", MAKE_USER, SYSTEM_USER]
        result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    try:
        # Whatever the command said: another process may have made the user at the same moment.
        return _existing_account()
    except KeyError:
        raise EmbeddedError(
            f"PostgreSQL refuses to run as root, and the system user {SYSTEM_USER} could not be made: "
            f"{result.stderr.strip()}. Next: start as an ordinary user, make that user, or set DATABASE_URL."
        ) from None


def refuse_another_owner(folder: Path) -> None:
    owner, user = folder.stat().st_uid if folder.exists() else os.geteuid(), os.geteuid()
    if owner != user:
        raise EmbeddedError(
            f"{folder} belongs to {user_name(owner)}, and this process runs as {user_name(user)}. "
            f"Next: start as {user_name(owner)}, or choose another home."
        )


def make_folder(folder: Path) -> None:
    """Nobody else may list it; for root others may pass, since the server runs as another user."""
    folder.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _existing_account() -> Account:
    entry = pwd.getpwnam(SYSTEM_USER)
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
