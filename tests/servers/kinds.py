"""The kinds of servers that the tests can run on: `pytest --on tls`. Each is started from what is installed here."""

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
from tests.servers.postgresql import OVER_TLS, WITH_REPLICATION, give, own_folder, postgresql, replica_of

HARD_PASSWORD = "p@ss/w#r d%41:?"
NAME = "127.0.0.1"


class Beside(NamedTuple):
    """What lies beside a server: the way past its pooler, and its replica."""

    direct: tuple[str, int] | None = None
    replica: tuple[str, int] | None = None


_beside: dict[tuple[str | None, int | None], Beside] = {}
"""By host and port, so that it holds for every database and role of a server."""


def direct_url(url: URL) -> URL:
    """The way to the server without its pooler; the same where there is none."""
    found = _beside.get((url.host, url.port), Beside()).direct
    return url.set(host=found[0], port=found[1]) if found else url


def replica_url(url: URL) -> URL | None:
    """The way to the server's replica, where it has one."""
    found = _beside.get((url.host, url.port), Beside()).replica
    return url.set(host=found[0], port=found[1]) if found else None


@contextmanager
def embedded() -> Iterator[URL]:
    """The embedded server."""
    with tempfile.TemporaryDirectory(prefix="ledger-test-") as home, EmbeddedServer.acquire(Path(home)) as server:
        yield parse_url("DATABASE_URL", server.url)


@contextmanager
def tls() -> Iterator[URL]:
    """PostgreSQL 15 that takes nothing but TLS and SCRAM, with a password as hard as they come."""
    with own_folder("certificates") as folder:
        authority = Authority(folder, "authority")
        certificate, key = authority.issue("server", NAME)
        for path in (certificate, key):
            give(path)
        folder.chmod(0o755)
        settings = {"ssl": "on", "ssl_cert_file": str(certificate), "ssl_key_file": str(key)}
        with postgresql(HARD_PASSWORD, OVER_TLS, **settings) as server:
            yield server.url.set(query={"sslmode": "verify-full", "sslrootcert": str(authority.certificate)})


@contextmanager
def behind_pgbouncer() -> Iterator[URL]:
    """PostgreSQL 15 behind PgBouncer in transaction mode."""
    with postgresql("secret") as server, pgbouncer(server.url) as url:
        _beside[url.host, url.port] = Beside(direct=(NAME, server.port))
        yield url


@contextmanager
def with_replica() -> Iterator[URL]:
    """PostgreSQL 15 with a streaming replica that has applied what a commit wrote when the commit returns.

    So tests that know nothing of replicas find there what they have just written.
    """
    with postgresql("secret", WITH_REPLICATION) as server, replica_of(server) as replica:
        # Set only now: without its replica the server would wait for ever.
        server.run("pg_ctl", "stop", "-w", "-m", "fast")
        server.start(synchronous_standby_names="*", synchronous_commit="remote_apply")
        _beside[NAME, server.port] = Beside(replica=(NAME, replica.port))
        yield server.url


KINDS: dict[str, Callable[[], AbstractContextManager[URL]]] = {
    "embedded": embedded,
    "tls": tls,
    "pgbouncer": behind_pgbouncer,
    "replica": with_replica,
}
