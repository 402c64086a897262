"""PgBouncer in front of a PostgreSQL server, in transaction or session mode."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests.servers.postgresql import SERVER_USER, free_port, give_to_server_user, require, server_folder

CONFIGURATION = """
[databases]
* = host={host} port={server_port} auth_user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
pool_mode = {mode}
auth_type = scram-sha-256
auth_file = {folder}/users
auth_query = SELECT usename, passwd FROM pg_shadow WHERE usename = $1
admin_users = {user}
max_client_conn = 1000
default_pool_size = {pool_size}
server_login_retry = 1
server_idle_timeout = 5
logfile = {folder}/log
"""


@contextmanager
def pgbouncer(server: URL, mode: str = "transaction", pool_size: int = 20) -> Iterator[URL]:
    """Run PgBouncer in front of a server, with at most `pool_size` server connections; yield its URL."""
    program = require("pgbouncer", "pgbouncer")
    with server_folder("pgbouncer") as folder:
        port = free_port()
        users, configuration = folder / "users", folder / "pgbouncer.ini"
        users.write_text(f'"{server.username}" "{server.password}"\n')
        configuration.write_text(
            CONFIGURATION.format(
                host=server.host,
                server_port=server.port,
                user=server.username,
                port=port,
                folder=folder,
                mode=mode,
                pool_size=pool_size,
            )
        )
        for path in (users, configuration):
            give_to_server_user(path)
        with (folder / "errors").open("wb") as errors:
            process = subprocess.Popen(
                [program, "-q", str(configuration)], cwd="/", stdout=errors, stderr=errors, **SERVER_USER
            )
        try:
            url = server.set(port=port)
            _wait_until_listening(port, folder / "errors")
            yield url
        finally:
            process.terminate()
            process.wait(30)


def _wait_until_listening(port: int, errors: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        if time.monotonic() > deadline:
            pytest.fail(f"PgBouncer did not start: {errors.read_text()}")
        time.sleep(0.02)
