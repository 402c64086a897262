"""The servers that the migrations are tried on: the session's own, and PostgreSQL 15, the oldest that is supported.

The roles on the latter are no superusers: they own their database, as with any hosted PostgreSQL.
"""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from tests.conftest import administer

BINARIES_15 = Path("/usr/lib/postgresql/15/bin")


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


@pytest.fixture(params=["session-ledger", "postgresql_15-ledger", "postgresql_15-somebody"])
async def an_empty_database(request: pytest.FixtureRequest) -> AsyncIterator[URL]:
    """An empty database on each of the servers, owned by a role called as our schema is, and by another one."""
    server_name, _, role = request.param.partition("-")
    server: URL = request.getfixturevalue({"session": "server_url"}.get(server_name, server_name))
    name = f"migrations_{uuid.uuid4().hex[:12]}"
    url = server.set(database=name)
    if role != server.username:
        await administer(server, f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
        url = url.set(username=role, password="secret")
    await administer(server, f"CREATE DATABASE {name} OWNER {role}")
    yield url
    await administer(server, f"DROP DATABASE {name} WITH (FORCE)")
    if role != server.username:
        await administer(server, f"DROP ROLE {role}")
