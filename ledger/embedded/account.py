"""The system user that runs PostgreSQL if root starts it, file permissions, and the owner of a home."""

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
CREATE_USER = """
    PATH="$PATH:/usr/sbin:/sbin"
    exec useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$0"
"""

logger = logging.getLogger("ledger.embedded")


class Account(NamedTuple):
    """A system user. PostgreSQL refuses to run as root."""

    name: str
    uid: int
    gid: int

    def take_ownership(self, path: Path) -> None:
        """Become the owner of a file or a folder. In another container the same user name may have another uid."""
        if path.stat().st_uid == self.uid:
            return
        # The folder itself last: if this is interrupted, its owner shows that it must be repeated.
        for part in reversed([path, *path.rglob("*")]):
            os.chown(part, self.uid, self.gid, follow_symlinks=False)

    def allow_access(self, installation: Path, folder: Path) -> None:
        """Allow this user to reach its data and to run the binaries: x but never r on parent folders."""
        for parent in sorted({*installation.parents, *folder.parents, folder}):
            if self._grant(parent, stat.S_IXOTH):
                logger.warning(
                    "%s: the PostgreSQL user %s may now traverse this folder, but not list it", parent, self.name
                )
        # The shared libraries of the wheel are beside its package, not in it.
        libraries = installation.parent.with_name(f"{installation.parent.name}.libs")
        changed = 0
        for top in (installation, libraries):
            for parent_name, _, files in os.walk(top):
                for path in (Path(parent_name), *(Path(parent_name, file) for file in files)):
                    changed += self._grant(path, path.stat().st_mode >> 6 & (stat.S_IROTH | stat.S_IXOTH))
        if changed:
            logger.warning("%s: %d files and folders are now readable for %s", installation, changed, self.name)

    def _grant(self, path: Path, bits: int) -> bool:
        """Add the permission bits that the account lacks; return whether any were missing."""
        status = path.stat()
        shift = 6 if status.st_uid == self.uid else 3 if status.st_gid == self.gid else 0
        missing = (bits << shift) & ~status.st_mode
        if missing:
            path.chmod(stat.S_IMODE(status.st_mode) | missing)
        return bool(missing)


def system_account() -> Account:
    """Return the account of SYSTEM_USER, which is created if it does not exist."""
    try:
        return _existing_account()
    except KeyError:
        command = ["/bin/sh", "-c", CREATE_USER, SYSTEM_USER]
        result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    try:
        # Even if the command failed: another process may have created the user at the same time.
        return _existing_account()
    except KeyError:
        raise EmbeddedError(
            f"PostgreSQL refuses to run as root, and the system user {SYSTEM_USER} could not be created: "
            f"{result.stderr.strip()}. Next: start as an ordinary user, create that user, or set DATABASE_URL."
        ) from None


def require_same_owner(folder: Path) -> None:
    """Raise EmbeddedError if a folder belongs to another user than the one of this process."""
    owner, user = folder.stat().st_uid if folder.exists() else os.geteuid(), os.geteuid()
    if owner != user:
        raise EmbeddedError(
            f"{folder} belongs to {user_name(owner)}, and this process runs as {user_name(user)}. "
            f"Next: start as {user_name(owner)}, or choose another home with --home."
        )


def make_folder(folder: Path) -> None:
    """Create a folder that no other user may list. If root creates it, the user of the server may traverse it."""
    try:
        folder.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
    except FileNotFoundError:
        # Its parents are created too, so this is a file system such as /proc.
        raise EmbeddedError(
            f"{folder} cannot be created: its file system allows no new folders. Next: choose another home with --home "
            "or LEDGER_HOME."
        ) from None


def user_name(uid: int) -> str:
    """Return the name of a user, or `uid N` if it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _existing_account() -> Account:
    entry = pwd.getpwnam(SYSTEM_USER)
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
