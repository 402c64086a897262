"""Servers to test migrations on: the one of the session, and PostgreSQL 15, the oldest supported.

The users on the latter are not superusers: they own their database, as on a hosted PostgreSQL.
"""

import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import URL

from tests.conftest import administer
from tests.servers.kinds import direct_url
from tests.servers.postgresql import postgresql


@pytest.fixture(scope="session")
def postgresql_15() -> Iterator[URL]:
    """A PostgreSQL 15 from Debian packages."""
    with postgresql("secret") as server:
        yield server.url


@pytest.fixture(params=["session-ledger", "postgresql_15-ledger", "postgresql_15-somebody"])
async def an_empty_database(request: pytest.FixtureRequest) -> AsyncIterator[URL]:
    """An empty database on each server, owned by a role named like the schema `ledger`, and by another role."""
    server_name, _, role = request.param.partition("-")
    server: URL = direct_url(request.getfixturevalue({"session": "server_url"}.get(server_name, server_name)))
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
