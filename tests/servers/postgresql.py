"""A PostgreSQL 15 of Debian's as a server of the tests' own: on a free port, in a folder that is thrown away."""

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

OPEN = "host all all 127.0.0.1/32 scram-sha-256\n"
OVER_TLS = "hostssl all all 127.0.0.1/32 scram-sha-256\n"
WITH_REPLICATION = OPEN + "host replication all 127.0.0.1/32 scram-sha-256\n"

# PostgreSQL and PgBouncer refuse to run as root.
AS_USER: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}


def require(program: Path | str, package: str) -> str:
    """The program's path; without it the test is skipped, loudly."""
    found = shutil.which(str(program), path=f"{os.defpath}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"NOT TESTED: {Path(program).name} is missing; run: apt-get install {package}")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def own_folder(name: str) -> Iterator[Path]:
    """A folder of the server's user."""
    with tempfile.TemporaryDirectory(prefix=f"ledger-{name}-") as made:
        give(Path(made))
        yield Path(made)


def give(path: Path) -> None:
    if AS_USER:
        shutil.chown(path, AS_USER["user"], AS_USER["group"])


class PostgreSQL:
    """A server that can be stopped and started again on its port."""

    def __init__(self, folder: Path, password: str) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.port = free_port()
        self.url = URL.create("postgresql+asyncpg", OWNER, password, "127.0.0.1", self.port, "postgres")

    @property
    def pid(self) -> int:
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def make(self, rules: str) -> None:
        """Make the cluster; `rules` say who may connect how."""
        password = self.folder / "password"
        password.write_text(f"{self.url.password}\n")
        give(password)
        self.run("initdb", f"--username={OWNER}", f"--pwfile={password}", "--auth=scram-sha-256", "--encoding=UTF8")
        (self.data / "pg_hba.conf").write_text(rules)

    def start(self, **settings: str) -> None:
        """Start it; settings are kept for later starts."""
        fixed = {"port": str(self.port), "listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
        fixed |= {"max_connections": "200"} | settings
        with (self.data / "postgresql.auto.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in fixed.items())
        self.start_again()

    def start_again(self) -> None:
        # Its output goes to a file: a pipe would stay open as long as the server runs.
        self.run("pg_ctl", "start", "-w", "-l", str(self.folder / "log"))

    def stop(self, mode: str = "immediate") -> None:
        self.run("pg_ctl", "stop", "-w", "-m", mode)

    def run(self, program: str, *arguments: str) -> None:
        command = [require(BINARIES / program, "postgresql-15"), "-D", str(self.data), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", **AS_USER)
        assert done.returncode == 0, done.stderr + done.stdout


@contextmanager
def postgresql(password: str, rules: str = OPEN, **settings: str) -> Iterator[PostgreSQL]:
    """A new server while inside."""
    require(BINARIES / "postgres", "postgresql-15")
    with own_folder("postgresql-15") as folder:
        server = PostgreSQL(folder, password)
        server.make(rules)
        server.start(**settings)
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def replica_of(primary: PostgreSQL) -> Iterator[PostgreSQL]:
    """A streaming replica of a server while inside."""
    with own_folder("replica") as folder:
        replica = PostgreSQL(folder, str(primary.url.password))
        source = primary.url.set(drivername="postgresql", database=None).render_as_string(hide_password=False)
        replica.run("pg_basebackup", f"--dbname={source}?application_name=replica", "--write-recovery-conf")
        replica.start(hot_standby_feedback="on", synchronous_standby_names="")
        try:
            yield replica
        finally:
            replica.stop()
