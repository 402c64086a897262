"""Use of the embedded server by several processes: start or adopt it, count users, stop with the last."""

import atexit
import errno
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
from ledger.embedded.cluster import ANSWER_SECONDS_MAX, UPGRADED, Cluster
from ledger.embedded.errors import EmbeddedError
from ledger.embedded.postmaster import Postmaster, running_postmaster
from ledger.embedded.programs import interruptions_deferred

if sys.platform != "win32":
    import fcntl


class EmbeddedServer:
    """The use of the server of one home by this process. `url` works in psql, asyncpg and SQLAlchemy."""

    url: str
    pid: int

    def __init__(self, cluster: Cluster, users_lock: int, postmaster: Postmaster) -> None:
        """Make the object for a running server; use `acquire` instead.

        Args:
            cluster: the data folder of the server.
            users_lock: the file descriptor of users.lock, with a shared lock.
            postmaster: the running server.
        """
        self.url = cluster.url(postmaster)
        self.pid = postmaster.pid
        self._port = postmaster.port
        self._cluster = cluster
        self._users_lock: int | None = users_lock
        self._process = os.getpid()
        # For a signal that ends the process just before or after the context of this object.
        atexit.register(self.release)

    @classmethod
    def acquire(cls, home: Path) -> Self:
        """Create the server of a home on first use, start or adopt it, and register this process as a user.

        Raises:
            EmbeddedError: the server does not answer within `ANSWER_SECONDS_MAX`, or cannot run on this system.
        """
        with _plain_errors(home):
            cluster = Cluster(home)
            with _start_lock(cluster.folder):
                users_lock = _open_lock(cluster.folder / "users.lock")
                try:
                    fcntl.flock(users_lock, fcntl.LOCK_SH)
                    return cls(cluster, users_lock, cluster.ensure_running())
                except Exception:
                    # The server keeps running: stopping it during crash recovery would restart the recovery.
                    os.close(users_lock)
                    raise
                except BaseException:
                    _leave(cluster, users_lock)
                    raise

    def is_running(self) -> bool:
        """Whether the server runs; fast enough for the event loop."""
        return running_postmaster(self._cluster.data) is not None

    def restart(self) -> None:
        """Start the server after it has ended, on its port, which connection pools and users know.

        Raises:
            EmbeddedError: it does not start, or another process has started it on another port.
        """
        with _plain_errors(self._cluster.folder.parent), _start_lock(self._cluster.folder):
            self.pid = self._cluster.ensure_running(self._port).pid

    def release(self) -> None:
        """Deregister this process; the last user stops the server and waits until it has stopped. Idempotent."""
        # A forked child must not release what its parent uses.
        if self._users_lock is None or os.getpid() != self._process:
            return
        with (
            interruptions_deferred(),
            _plain_errors(self._cluster.folder.parent),
            _start_lock(self._cluster.folder),
        ):
            users_lock, self._users_lock = self._users_lock, None
            _leave(self._cluster, users_lock)
        atexit.unregister(self.release)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def server_exists(home: Path) -> bool:
    """Whether a home has an embedded server, running or not.

    Raises:
        EmbeddedError: the home cannot be read.
    """
    with _plain_errors(home):
        return any((home / "postgres" / name).exists() for name in ("data", UPGRADED))


@contextmanager
def exclusive_server(cluster: Cluster) -> Iterator[None]:
    """Let no other process use or start the server of a cluster within the context.

    Raises:
        EmbeddedError: a process uses it.
    """
    with _plain_errors(cluster.folder.parent), _start_lock(cluster.folder):
        users_lock = _open_lock(cluster.folder / "users.lock")
        try:
            if not _try_lock(users_lock):
                raise EmbeddedError(f"{cluster.folder} is in use. Next: stop the service and all commands.")
            yield
        finally:
            os.close(users_lock)


@contextmanager
def exclusive_home(home: Path, purpose: str) -> Iterator[None]:
    """Hold HOME/service.lock within the context. On Windows, which has no embedded server, there is no lock.

    Raises:
        EmbeddedError: another process holds the lock; the message names it.
    """
    if sys.platform == "win32":
        yield
        return
    with _plain_errors(home):
        make_folder(home)
        lock = _open_lock(home / "service.lock")
    try:
        if not _try_lock(lock):
            pid, _, other_purpose = os.pread(lock, 1000, 0).decode(errors="replace").strip().partition(" ")
            raise EmbeddedError(
                f"{home} is in use by process {pid or 'unknown'} ({other_purpose or 'starting'}). "
                "Next: stop that process, or choose another home with --home."
            )
        line = f"{os.getpid()} {purpose}\n".encode()
        os.pwrite(lock, line, 0)
        os.ftruncate(lock, len(line))
        yield
    finally:
        os.close(lock)


def _leave(cluster: Cluster, users_lock: int) -> None:
    """Release the users lock. Only the last user can lock it exclusively: no process joins while start.lock is held."""
    try:
        if _try_lock(users_lock):
            cluster.stop()
    finally:
        os.close(users_lock)


@contextmanager
def _start_lock(folder: Path) -> Iterator[None]:
    """Hold start.lock while a server is created, started, adopted or stopped; wait for it for a limited time."""
    lock = _open_lock(folder / "start.lock")
    seconds_max = 3 * ANSWER_SECONDS_MAX
    deadline = time.monotonic() + seconds_max
    try:
        while not _try_lock(lock):
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


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _plain_errors(home: Path) -> Iterator[None]:
    try:
        yield
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise EmbeddedError(_describe_home_error(home, error)) from error
    except (OSError, subprocess.SubprocessError) as error:
        if isinstance(error, OSError) and error.errno == errno.EROFS:
            raise EmbeddedError(_describe_home_error(home, error)) from error
        raise EmbeddedError(
            f"The embedded PostgreSQL in {home} failed: {error}. Next: fix the cause and start again."
        ) from error


def _describe_home_error(home: Path, error: OSError) -> str:
    is_read_only = error.errno == errno.EROFS
    next_step = "make its file system writable" if is_read_only else "start as the user that created it"
    return (
        f"{home} cannot be used by {user_name(os.geteuid())}: {error.strerror} ({error.filename}). "
        f"Next: {next_step}, or choose another home with --home or LEDGER_HOME."
    )
