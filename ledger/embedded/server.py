"""Using the embedded server: one process's share in it, and the locks that count the processes."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from ledger.embedded.account import make_folder, user_name
from ledger.embedded.cluster import DATABASE, ROLE, WAIT_SECONDS_MAX, Cluster
from ledger.embedded.errors import EmbeddedError
from ledger.embedded.postmaster import Postmaster

if sys.platform != "win32":
    import fcntl


class EmbeddedServer:
    """One process's use of the server of one home. ``url`` works as it is in psql, asyncpg and SQLAlchemy."""

    url: str
    pid: int

    def __init__(self, cluster: Cluster, users_lock: int, postmaster: Postmaster) -> None:
        self.url = f"postgresql://{ROLE}:{cluster.password}@127.0.0.1:{postmaster.port}/{DATABASE}"
        self.pid = postmaster.pid
        self._cluster = cluster
        self._users_lock: int | None = users_lock

    @classmethod
    def acquire(cls, home: Path) -> Self:
        """Make the server of ``home`` on first use, start or adopt it, and count this process as a user.

        Raises EmbeddedError when it does not answer within WAIT_SECONDS_MAX, or cannot run here at all.
        """
        with _plain_errors(home):
            cluster = Cluster(home)
            with _start_lock(cluster.folder):
                users_lock = _open_lock(cluster.folder / "users.lock")
                try:
                    fcntl.flock(users_lock, fcntl.LOCK_SH)
                    return cls(cluster, users_lock, cluster.bring_up())
                except Exception:
                    # Left running: stopping a server in crash recovery would send it back to the beginning.
                    os.close(users_lock)
                    raise
                except BaseException:
                    _leave(cluster, users_lock)
                    raise

    def release(self) -> None:
        """Stop counting as a user; the last one stops the server and waits for its end. Idempotent."""
        if self._users_lock is None:
            return
        with _plain_errors(self._cluster.folder.parent), _start_lock(self._cluster.folder):
            users_lock, self._users_lock = self._users_lock, None
            _leave(self._cluster, users_lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


@contextmanager
def exclusive_home(home: Path, purpose: str) -> Iterator[None]:
    """Hold HOME/service.lock for the life of a service. Raises EmbeddedError naming whoever holds it.

    On Windows it holds nothing: there a service uses another database, and so may any number of them.
    """
    if sys.platform == "win32":
        yield
        return
    with _plain_errors(home):
        make_folder(home)
        lock = _open_lock(home / "service.lock")
    try:
        if not _locked_now(lock):
            pid, _, its_purpose = os.pread(lock, 1000, 0).decode(errors="replace").strip().partition(" ")
            raise EmbeddedError(
                f"{home} is in use by process {pid or 'unknown'} ({its_purpose or 'just starting'}). "
                "Next: stop that process, or choose another home."
            )
        line = f"{os.getpid()} {purpose}\n".encode()
        os.pwrite(lock, line, 0)
        os.ftruncate(lock, len(line))
        yield
    finally:
        os.close(lock)


def _leave(cluster: Cluster, users_lock: int) -> None:
    """Drop one user's lock. It can be had alone only by the last: nobody joins while start.lock is held."""
    try:
        if _locked_now(users_lock):
            cluster.stop()
    finally:
        os.close(users_lock)


@contextmanager
def _start_lock(folder: Path) -> Iterator[None]:
    """Held while a server is made, started, adopted or stopped. Waiting for it is bounded."""
    lock = _open_lock(folder / "start.lock")
    seconds_max = 3 * WAIT_SECONDS_MAX
    deadline = time.monotonic() + seconds_max
    try:
        while not _locked_now(lock):
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"Another process has been starting or stopping PostgreSQL for {seconds_max} s. "
                    f"Next: find it with `fuser {folder / 'start.lock'}` and end it."
                )
            time.sleep(0.02)
        yield
    finally:
        os.close(lock)


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def _locked_now(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _plain_errors(home: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise EmbeddedError(
            f"{home} cannot be used by {user_name(os.geteuid())}: {error}. "
            "Next: start as the user who made it, or choose another home."
        ) from error
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedError(f"The embedded PostgreSQL in {home} failed: {error}. Next: mend that.") from error
