"""A service shared by all tests of a file, for tests that check only what they created."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
from sqlalchemy import URL

from ledger.api.app import listen, serving
from ledger.database import Database
from tests.conftest import Service, administer, direct_and_replica
from tests.servers.kinds import replica_url


@pytest.fixture(scope="module")
async def shared(server_url: URL, template: str, working_as: Callable[[URL], URL]) -> AsyncIterator[Service]:
    """A whole service on its own database, shared by the tests of a file."""
    name = f"shared_{uuid.uuid4().hex[:12]}"
    await administer(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    database_url = server_url.set(database=name)
    database = Database(working_as(database_url))
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    async with (
        direct_and_replica(database_url) as others,
        serving(database, listener, with_worker=True, **others),
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
    ):
        yield Service(client, database, database_url)
    await database.close()
    await administer(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def outage(server_url: URL, database_url: URL) -> Callable[[bool], Awaitable[None]]:
    """Return a function that starts (True) and ends (False) an outage of the database."""

    async def change(out: bool) -> None:
        name = database_url.database
        await administer(server_url, f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS {not out}")
        for server in (server_url, replica_url(server_url)):
            if out and server is not None:
                await administer(
                    server, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
                )

    return change
