"""The servers that the migrations are tried on: the session's own, and PostgreSQL 15, the oldest that is supported.

A role there is no superuser: it owns its database, as in any hosted PostgreSQL.
"""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from tests.conftest import administer

BINARIES_15 = Path("/usr/lib/postgresql/15/bin")

MakeDatabase = Callable[[str], Awaitable[URL]]


@pytest.fixture(scope="session")
def postgresql_15() -> Iterator[URL]:
    """A PostgreSQL 15 of Debian's, on a free port, in a folder that is thrown away."""
    if not (BINARIES_15 / "postgres").exists():
        pytest.skip("NOT TESTED on PostgreSQL 15: it is not installed; run: apt-get install postgresql-15")
    # It refuses to run as root.
    user: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="ledger-postgresql-15-"))
    if user:
        shutil.chown(folder, "postgres", "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    password = folder / "password"
    password.write_text(secrets.token_hex(16))
    if user:
        shutil.chown(password, "postgres", "postgres")

    def run(program: str, *arguments: str) -> None:
        command = [str(BINARIES_15 / program), "-D", str(folder / "data"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", **user)
        assert done.returncode == 0, done.stderr + done.stdout

    run("initdb", "--username=owner", f"--pwfile={password}", "--auth=scram-sha-256", "--encoding=UTF8", "--no-sync")
    options = f"-c port={port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
    # Its output goes to a file: a pipe would stay open as long as the server runs.
    run("pg_ctl", "start", "-w", "-l", str(folder / "log"), "-o", options)
    try:
        yield URL.create("postgresql+asyncpg", "owner", password.read_text(), "127.0.0.1", port, "postgres")
    finally:
        run("pg_ctl", "stop", "-w", "-m", "immediate")
        shutil.rmtree(folder)


@pytest.fixture(params=["session", "postgresql_15"])
def any_server(request: pytest.FixtureRequest) -> URL:
    """Each of the servers in turn."""
    name = {"session": "server_url", "postgresql_15": "postgresql_15"}[request.param]
    url: URL = request.getfixturevalue(name)
    return url


@pytest.fixture
async def make_database(any_server: URL) -> AsyncIterator[MakeDatabase]:
    """Make an empty database owned by a role of this name, which is no superuser unless it was there before."""
    made: list[tuple[str, str]] = []

    async def make(role: str) -> URL:
        name = f"migrations_{uuid.uuid4().hex[:12]}"
        url = any_server.set(database=name)
        if role != any_server.username:
            await administer(any_server, f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
            url = url.set(username=role, password="secret")
        await administer(any_server, f"CREATE DATABASE {name} OWNER {role}")
        made.append((name, role))
        return url

    yield make
    for name, role in made:
        await administer(any_server, f"DROP DATABASE {name} WITH (FORCE)")
        if role != any_server.username:
            await administer(any_server, f"DROP ROLE {role}")
