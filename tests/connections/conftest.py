"""Servers of other kinds than the one of the run; each is started when a test first needs it."""

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import URL

from ledger.database import Database
from ledger.database.migrations import migrate
from tests.conftest import administer
from tests.servers.kinds import tls
from tests.servers.pgbouncer import pgbouncer
from tests.servers.postgresql import PostgreSQL, postgresql


@pytest.fixture(scope="package")
def plain_server() -> Iterator[PostgreSQL]:
    """A PostgreSQL 15 without TLS."""
    with postgresql("secret") as server:
        yield server


@pytest.fixture(scope="package")
def tls_url() -> Iterator[URL]:
    """A PostgreSQL 15 that accepts only TLS."""
    with tls() as url:
        yield url


@pytest.fixture(scope="package")
def pooler(plain_server: PostgreSQL) -> Iterator[URL]:
    """A transaction-mode pooler in front of the server without TLS."""
    with pgbouncer(plain_server.url) as url:
        yield url


@asynccontextmanager
async def migrated_on(server: URL) -> AsyncIterator[URL]:
    """Create a migrated database on a server within the context."""
    name = f"connections_{uuid.uuid4().hex[:12]}"
    await administer(server, f"CREATE DATABASE {name}")
    database = Database(server.set(database=name))
    await migrate(database)
    await database.close()
    yield server.set(database=name)
    await administer(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def migrated(plain_server: PostgreSQL) -> AsyncIterator[URL]:
    """A migrated database on the server without TLS."""
    async with migrated_on(plain_server.url) as url:
        yield url


@pytest.fixture
def pooled(pooler: URL, migrated: URL) -> URL:
    """The same database through the pooler."""
    return pooler.set(database=migrated.database)
