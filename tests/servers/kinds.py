"""The kinds of servers for `pytest --on KIND`: embedded, TLS only, behind PgBouncer, with a replica."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import URL

from ledger.config import parse_url
from ledger.embedded import EmbeddedServer
from tests.servers.certificates import Authority
from tests.servers.pgbouncer import pgbouncer
from tests.servers.postgresql import (
    REPLICATION_RULES,
    TLS_RULES,
    give_to_server_user,
    postgresql,
    replica_of,
    server_folder,
)

HARD_PASSWORD = "p@ss/w#r d%41:?"
NAME = "127.0.0.1"


class Companions(NamedTuple):
    """Host and port of the server behind a pooler, and of the replica."""

    direct: tuple[str, int] | None = None
    replica: tuple[str, int] | None = None


_companions: dict[tuple[str | None, int | None], Companions] = {}
"""By host and port, so that they apply to all databases and roles of a server."""


def direct_url(url: URL) -> URL:
    """Return the URL without the pooler; the same URL if there is none."""
    direct = _companions.get((url.host, url.port), Companions()).direct
    return url.set(host=direct[0], port=direct[1]) if direct else url


def replica_url(url: URL) -> URL | None:
    """Return the URL of the replica; None if there is none."""
    replica = _companions.get((url.host, url.port), Companions()).replica
    return url.set(host=replica[0], port=replica[1]) if replica else None


@contextmanager
def embedded() -> Iterator[URL]:
    """Run the embedded server."""
    with tempfile.TemporaryDirectory(prefix="ledger-test-") as home, EmbeddedServer.acquire(Path(home)) as server:
        yield parse_url("DATABASE_URL", server.url)


@contextmanager
def tls() -> Iterator[URL]:
    """Run a PostgreSQL 15 that accepts only TLS and SCRAM, with a password full of special characters."""
    with server_folder("certificates") as folder:
        authority = Authority(folder, "authority")
        certificate, key = authority.issue("server", NAME)
        for path in (certificate, key):
            give_to_server_user(path)
        folder.chmod(0o755)
        settings = {"ssl": "on", "ssl_cert_file": str(certificate), "ssl_key_file": str(key)}
        with postgresql(HARD_PASSWORD, TLS_RULES, **settings) as server:
            yield server.url.set(query={"sslmode": "verify-full", "sslrootcert": str(authority.certificate)})


@contextmanager
def behind_pgbouncer() -> Iterator[URL]:
    """Run a PostgreSQL 15 behind PgBouncer in transaction mode."""
    with postgresql("secret") as server, pgbouncer(server.url) as url:
        _companions[url.host, url.port] = Companions(direct=(NAME, server.port))
        yield url


@contextmanager
def with_replica() -> Iterator[URL]:
    """Run a PostgreSQL 15 with a streaming replica that has applied each commit when the commit returns.

    So tests written without regard to replicas read their own writes from it.
    """
    with postgresql("secret", REPLICATION_RULES) as server, replica_of(server) as replica:
        # Set only now: without a replica the server would wait forever.
        server.run("pg_ctl", "stop", "-w", "-m", "fast")
        server.start(synchronous_standby_names="*", synchronous_commit="remote_apply")
        _companions[NAME, server.port] = Companions(replica=(NAME, replica.port))
        yield server.url


KINDS: dict[str, Callable[[], AbstractContextManager[URL]]] = {
    "embedded": embedded,
    "tls": tls,
    "pgbouncer": behind_pgbouncer,
    "replica": with_replica,
}
