"""A second, empty ledger beside the test's own."""

import uuid
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.database import make_engine
from tests.conftest import administer
from tests.servers.kinds import direct_url


@pytest.fixture
async def empty_ledger(server_url: URL, template: str) -> AsyncIterator[AsyncEngine]:
    """An engine on a migrated database without events, to import into."""
    name = f"imported_{uuid.uuid4().hex[:12]}"
    await administer(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    engine = make_engine(direct_url(server_url).set(database=name))
    yield engine
    await engine.dispose()
    await administer(server_url, f"DROP DATABASE {name} WITH (FORCE)")
