"""A real PostgreSQL for every test: one server a run, a database of its own a test, cloned from a migrated template.

The server is the embedded one; with `--on tls`, `pgbouncer` or `replica` another kind, started from what is installed;
or that of LEDGER_TEST_DATABASE_URL (whose role must be allowed to make databases).
With LEDGER_TEST_AS_SERVICE=1 the service under test is a member of `ledger_service`, not the owner; what a test does
to the tables behind the service's back it then may not do either, so some tests cannot pass that way.
"""

import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple

import aiohttp
import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import create_async_engine

from ledger.api.app import listen, serving
from ledger.config import parse_url
from ledger.database import Database
from ledger.database.engine import connect_arguments
from ledger.database.migrations import migrate
from tests.servers.kinds import KINDS, direct_url, replica_url


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--on", choices=sorted(KINDS), default="embedded", help="the kind of server that is tested on")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Give the run a folder of its own.

    When a run begins, pytest closes the one that all runs of a user share to others: to the user that PostgreSQL
    runs as for root too, whose servers in it then end in the middle of another run's tests.
    """
    if config.option.basetemp is None:
        config.option.basetemp = tempfile.mkdtemp(prefix="ledger-tests-")
        config.add_cleanup(partial(shutil.rmtree, config.option.basetemp, ignore_errors=True))


@pytest.fixture
def kind(pytestconfig: pytest.Config) -> str:
    """The kind of server that is tested on."""
    return str(pytestconfig.getoption("on"))


@pytest.fixture(scope="session")
def server_url(pytestconfig: pytest.Config) -> Iterator[URL]:
    """The server that all databases of this run are made on."""
    configured = os.environ.get("LEDGER_TEST_DATABASE_URL")
    if configured:
        yield parse_url("LEDGER_TEST_DATABASE_URL", configured)
        return
    with KINDS[pytestconfig.getoption("on")]() as url:
        yield url


async def administer(server_url: URL, statement: str) -> None:
    """Run a statement that no transaction may hold, such as CREATE DATABASE."""
    url, arguments = connect_arguments(direct_url(server_url))
    engine = create_async_engine(url, connect_args=arguments, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(statement))
    await engine.dispose()


@pytest.fixture(scope="session")
async def template(server_url: URL) -> AsyncIterator[str]:
    """The name of a migrated, empty database to clone."""
    name = f"template_{uuid.uuid4().hex[:12]}"
    await administer(server_url, f"CREATE DATABASE {name}")
    database = Database(direct_url(server_url).set(database=name))
    await migrate(database)
    await database.close()
    yield name
    await administer(server_url, f"DROP DATABASE {name} WITH (FORCE)")


def way_to(server_url: URL, request: pytest.FixtureRequest) -> URL:
    """The server as the test asks for it: past the pooler where it needs a session."""
    return direct_url(server_url) if request.node.get_closest_marker("direct") else server_url


@pytest.fixture
async def empty_database_url(request: pytest.FixtureRequest, server_url: URL) -> AsyncIterator[URL]:
    """A database with nothing in it."""
    name = f"empty_{uuid.uuid4().hex[:12]}"
    await administer(server_url, f"CREATE DATABASE {name}")
    yield way_to(server_url, request).set(database=name)
    await administer(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database_url(request: pytest.FixtureRequest, server_url: URL, template: str) -> AsyncIterator[URL]:
    """A migrated database of the test's own."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    await administer(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield way_to(server_url, request).set(database=name)
    await administer(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
async def service_user(server_url: URL, template: str) -> AsyncIterator[tuple[str, str]]:
    """Name and password of a user made as an operator makes the service's."""
    name, password = f"app_{uuid.uuid4().hex[:12]}", uuid.uuid4().hex
    await administer(server_url, f"CREATE ROLE {name} LOGIN PASSWORD '{password}' IN ROLE ledger_service")
    yield name, password
    await administer(server_url, f"DROP ROLE {name}")


@pytest.fixture
def service_url(database_url: URL, service_user: tuple[str, str]) -> URL:
    """The test's own database, entered as the service."""
    return as_service(database_url, service_user)


def as_service(url: URL, service_user: tuple[str, str]) -> URL:
    """A database's URL for that user."""
    name, password = service_user
    return url.set(username=name, password=password)


@pytest.fixture(scope="session")
def working_as(request: pytest.FixtureRequest) -> Callable[[URL], URL]:
    """How the service under test enters a database: as its owner, or on demand as a user of its own."""
    if not os.environ.get("LEDGER_TEST_AS_SERVICE"):
        return lambda url: url
    service_user = request.getfixturevalue("service_user")
    return lambda url: as_service(url, service_user)


@pytest.fixture
async def database(database_url: URL, working_as: Callable[[URL], URL]) -> AsyncIterator[Database]:
    """An database on the test's own database."""
    database = Database(working_as(database_url))
    yield database
    await database.close()


@asynccontextmanager
async def beside(database_url: URL) -> AsyncIterator[dict[str, Database]]:
    """The ways to a database beside its URL, as `serving` takes them."""
    ways = {"direct": direct_url(database_url), "replica": replica_url(database_url)}
    engines = {name: Database(url) for name, url in ways.items() if url not in (None, database_url)}
    yield engines
    for database in engines.values():
        await database.close()


class Service(NamedTuple):
    """A running service: `client` speaks to its API over real HTTP."""

    client: aiohttp.ClientSession
    database: Database
    database_url: URL

    async def post(self, events: Any, **parameters: str) -> tuple[int, Any]:
        """Append; the status and the JSON answered."""
        async with self.client.post("/v1/events", json=events, params=parameters) as answer:
            return answer.status, await answer.json(content_type=None)

    async def append(self, *events: dict[str, Any]) -> list[dict[str, Any]]:
        """Append events that must be accepted; their receipts."""
        status, answer = await self.post(list(events))
        assert status in (200, 201), answer
        receipts: list[dict[str, Any]] = answer["events"]
        return receipts

    async def get(self, path: str, **parameters: Any) -> Any:
        """Read; the JSON answered with status 200, of read models that reflect everything appended before."""
        if path.startswith(("/v1/events", "/v1/streams")) or path.endswith("/timeline"):
            waiting = {}
        else:
            head = await self.head()
            waiting = {"Ledger-Min-Position": str(head)}
        async with self.client.get(path, params=parameters, headers=waiting) as answer:
            body = await answer.json(content_type=None)
            assert answer.status == 200, body
            return body

    async def problem(self, path: str, **parameters: Any) -> tuple[int, dict[str, Any]]:
        """Read what must fail; the status and the problem document."""
        async with self.client.get(path, params=parameters) as answer:
            assert answer.content_type == "application/problem+json"
            return answer.status, await answer.json(content_type=None)

    async def head(self) -> int:
        """The position of the last event."""
        async with self.client.get("/v1/events", params={"limit": "1"}) as answer:
            head: int = (await answer.json())["head"]
            return head


@pytest.fixture
async def service(database: Database, database_url: URL) -> AsyncIterator[Service]:
    """The whole service in this process: API, appender, worker and sweeper on the test's own database."""
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    async with (
        beside(database_url) as ways,
        serving(database, listener, with_worker=True, **ways),
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
    ):
        yield Service(client, database, database_url)
