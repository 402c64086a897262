"""An appender on the database of a test, and a database that the tests of a module share."""

import uuid
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import URL

from ledger.database import Database
from ledger.log.appender import Appender
from tests.conftest import administer, url_for_test


@pytest.fixture
async def appender(database: Database) -> AsyncIterator[Appender]:
    async with Appender(database) as appender:
        yield appender


@pytest.fixture(scope="module")
async def shared_database_url(request: pytest.FixtureRequest, server_url: URL, template: str) -> AsyncIterator[URL]:
    """A migrated database for all tests of a module, which must not change it."""
    name = f"shared_{uuid.uuid4().hex[:12]}"
    await administer(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield url_for_test(server_url, request).set(database=name)
    await administer(server_url, f"DROP DATABASE {name} WITH (FORCE)")
