"""Fixture: a second, empty ledger beside the database of the test."""

import uuid
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import URL

from ledger.database import Database
from tests.conftest import administer
from tests.servers.kinds import direct_url


@pytest.fixture
async def empty_ledger(server_url: URL, template: str) -> AsyncIterator[Database]:
    """A migrated database without events, to import into."""
    name = f"imported_{uuid.uuid4().hex[:12]}"
    await administer(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    database = Database(direct_url(server_url).set(database=name))
    yield database
    await database.close()
    await administer(server_url, f"DROP DATABASE {name} WITH (FORCE)")
