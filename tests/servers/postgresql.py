"""PostgreSQL 15 from Debian packages as a test server: on a free port, in a temporary folder."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

BINARIES = Path("/usr/lib/postgresql/15/bin")
OWNER = "owner"

PASSWORD_RULES = "host all all 127.0.0.1/32 scram-sha-256\n"
TLS_RULES = "hostssl all all 127.0.0.1/32 scram-sha-256\n"
REPLICATION_RULES = PASSWORD_RULES + "host replication all 127.0.0.1/32 scram-sha-256\n"

# PostgreSQL and PgBouncer refuse to run as root.
SERVER_USER: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}


def require(program: Path | str, package: str) -> str:
    """Return the path of a program; skip the test and report it as not tested if the program is missing."""
    path = shutil.which(str(program), path=f"{os.defpath}:/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"NOT TESTED: {Path(program).name} is missing; run: apt-get install {package}")
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def server_folder(name: str) -> Iterator[Path]:
    """Create a temporary folder that belongs to the user of the server."""
    with tempfile.TemporaryDirectory(prefix=f"ledger-{name}-") as folder:
        give_to_server_user(Path(folder))
        yield Path(folder)


def give_to_server_user(path: Path) -> None:
    if SERVER_USER:
        shutil.chown(path, SERVER_USER["user"], SERVER_USER["group"])


class PostgreSQL:
    """A server that can be stopped and restarted on the same port."""

    def __init__(self, folder: Path, password: str) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.port = free_port()
        self.url = URL.create("postgresql+asyncpg", OWNER, password, "127.0.0.1", self.port, "postgres")

    @property
    def pid(self) -> int:
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def initialize(self, rules: str) -> None:
        """Create the data folder; `rules` are the lines of pg_hba.conf."""
        password = self.folder / "password"
        password.write_text(f"{self.url.password}\n")
        give_to_server_user(password)
        self.run("initdb", f"--username={OWNER}", f"--pwfile={password}", "--auth=scram-sha-256", "--encoding=UTF8")
        (self.data / "pg_hba.conf").write_text(rules)

    def start(self, **settings: str) -> None:
        """Start the server; the settings also apply to later starts."""
        defaults = {"port": str(self.port), "listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
        values = defaults | {"max_connections": "200"} | settings
        with (self.data / "postgresql.auto.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in values.items())
        self.restart()

    def restart(self) -> None:
        # The output goes to a file: a pipe would stay open as long as the server runs.
        self.run("pg_ctl", "start", "-w", "-l", str(self.folder / "log"))

    def stop(self, mode: str = "immediate") -> None:
        self.run("pg_ctl", "stop", "-w", "-m", mode)

    def run(self, program: str, *arguments: str) -> None:
        command = [require(BINARIES / program, "postgresql-15"), "-D", str(self.data), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, cwd="/", **SERVER_USER)
        assert result.returncode == 0, result.stderr + result.stdout


@contextmanager
def postgresql(password: str, rules: str = PASSWORD_RULES, **settings: str) -> Iterator[PostgreSQL]:
    """Run a new server within the context."""
    require(BINARIES / "postgres", "postgresql-15")
    with server_folder("postgresql-15") as folder:
        server = PostgreSQL(folder, password)
        server.initialize(rules)
        server.start(**settings)
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def replica_of(primary: PostgreSQL) -> Iterator[PostgreSQL]:
    """Run a streaming replica of a server within the context."""
    with server_folder("replica") as folder:
        replica = PostgreSQL(folder, str(primary.url.password))
        source = primary.url.set(drivername="postgresql", database=None).render_as_string(hide_password=False)
        replica.run("pg_basebackup", f"--dbname={source}?application_name=replica", "--write-recovery-conf")
        replica.start(hot_standby_feedback="on", synchronous_standby_names="")
        try:
            yield replica
        finally:
            replica.stop()
