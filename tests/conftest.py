"""A real PostgreSQL for all tests: one server per run, one database per test, cloned from a template.

The server is the embedded one. `--on tls`, `pgbouncer` or `replica` starts another kind from installed packages;
LEDGER_TEST_DATABASE_URL names an existing server, whose role must be allowed to create databases.
With LEDGER_TEST_AS_SERVICE=1 the service under test is a member of `ledger_service` instead of the owner. Tests that
change tables directly are then refused too, so some tests cannot pass.
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
from ledger.outage import Outage
from tests.servers.kinds import KINDS, direct_url, replica_url


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--on", choices=sorted(KINDS), default="embedded", help="the kind of server to run the tests on")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Give each run a separate temporary folder.

    By default all runs of a user share one, and each run restricts it to its user. If root runs the tests, the user of
    PostgreSQL then loses access, and the servers of another run stop in the middle of its tests.
    """
    if config.option.basetemp is None:
        config.option.basetemp = tempfile.mkdtemp(prefix="ledger-tests-")
        config.add_cleanup(partial(shutil.rmtree, config.option.basetemp, ignore_errors=True))


@pytest.fixture
def kind(pytestconfig: pytest.Config) -> str:
    """The kind of server that the tests run on."""
    return str(pytestconfig.getoption("on"))


@pytest.fixture(scope="session")
def server_url(pytestconfig: pytest.Config) -> Iterator[URL]:
    """The server on which all databases of this run are created."""
    configured = os.environ.get("LEDGER_TEST_DATABASE_URL")
    if configured:
        yield parse_url("LEDGER_TEST_DATABASE_URL", configured)
        return
    with KINDS[pytestconfig.getoption("on")]() as url:
        yield url


async def administer(server_url: URL, statement: str) -> None:
    """Run a statement that cannot run in a transaction, such as CREATE DATABASE."""
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


def url_for_test(server_url: URL, request: pytest.FixtureRequest) -> URL:
    """Return the URL of the server without its pooler for tests marked `direct`, which need a session."""
    return direct_url(server_url) if request.node.get_closest_marker("direct") else server_url


@pytest.fixture
async def empty_database_url(request: pytest.FixtureRequest, server_url: URL) -> AsyncIterator[URL]:
    """An empty database."""
    name = f"empty_{uuid.uuid4().hex[:12]}"
    await administer(server_url, f"CREATE DATABASE {name}")
    yield url_for_test(server_url, request).set(database=name)
    await administer(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database_url(request: pytest.FixtureRequest, server_url: URL, template: str) -> AsyncIterator[URL]:
    """A migrated database for one test."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    await administer(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield url_for_test(server_url, request).set(database=name)
    await administer(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
async def service_user(server_url: URL, template: str) -> AsyncIterator[tuple[str, str]]:
    """The name and password of a database user in the role `ledger_service`."""
    name, password = f"app_{uuid.uuid4().hex[:12]}", uuid.uuid4().hex
    await administer(server_url, f"CREATE ROLE {name} LOGIN PASSWORD '{password}' IN ROLE ledger_service")
    yield name, password
    await administer(server_url, f"DROP ROLE {name}")


@pytest.fixture
def service_url(database_url: URL, service_user: tuple[str, str]) -> URL:
    """The database of the test, connected to as the user of the service."""
    return as_service(database_url, service_user)


def as_service(url: URL, service_user: tuple[str, str]) -> URL:
    """Return the URL of a database with the name and password of this user."""
    name, password = service_user
    return url.set(username=name, password=password)


@pytest.fixture(scope="session")
def working_as(request: pytest.FixtureRequest) -> Callable[[URL], URL]:
    """Returns the URL that the service under test connects to: as the owner, or as the user of the service."""
    if not os.environ.get("LEDGER_TEST_AS_SERVICE"):
        return lambda url: url
    service_user = request.getfixturevalue("service_user")
    return lambda url: as_service(url, service_user)


@pytest.fixture
async def database(database_url: URL, working_as: Callable[[URL], URL]) -> AsyncIterator[Database]:
    """A connection pool for the database of the test."""
    database = Database(working_as(database_url), outage=Outage())
    yield database
    await database.close()


@asynccontextmanager
async def direct_and_replica(database_url: URL) -> AsyncIterator[dict[str, Database]]:
    """Open the direct database and the replica of a database, if there are any, as arguments for `serving`."""
    urls = {"direct": direct_url(database_url), "replica": replica_url(database_url)}
    databases = {name: Database(url) for name, url in urls.items() if url not in (None, database_url)}
    yield databases
    for database in databases.values():
        await database.close()


class Service(NamedTuple):
    """A running service, and an HTTP client of its API."""

    client: aiohttp.ClientSession
    database: Database
    database_url: URL

    async def post(self, events: Any, **parameters: str) -> tuple[int, Any]:
        """Append events; return the status and the JSON of the response."""
        async with self.client.post("/v1/events", json=events, params=parameters) as answer:
            return answer.status, await answer.json(content_type=None)

    async def append(self, *events: dict[str, Any]) -> list[dict[str, Any]]:
        """Append events, all of which must be accepted; return their receipts."""
        status, answer = await self.post(list(events))
        assert status in (200, 201), answer
        receipts: list[dict[str, Any]] = answer["events"]
        return receipts

    async def get(self, path: str, **parameters: Any) -> Any:
        """Read with status 200, from read models that reflect all events appended before; return the JSON."""
        if path.startswith(("/v1/events", "/v1/streams")) or path.endswith("/timeline"):
            headers = {}
        else:
            head = await self.head()
            headers = {"Ledger-Min-Position": str(head)}
        async with self.client.get(path, params=parameters, headers=headers) as answer:
            body = await answer.json(content_type=None)
            assert answer.status == 200, body
            return body

    async def problem(self, path: str, **parameters: Any) -> tuple[int, dict[str, Any]]:
        """Read with an error; return the status and the problem document."""
        async with self.client.get(path, params=parameters) as answer:
            assert answer.content_type == "application/problem+json"
            return answer.status, await answer.json(content_type=None)

    async def head(self) -> int:
        """Return the position of the last event."""
        async with self.client.get("/v1/events", params={"limit": "1"}) as answer:
            head: int = (await answer.json())["head"]
            return head


@pytest.fixture
async def service(database: Database, database_url: URL) -> AsyncIterator[Service]:
    """The whole service in this process, on the database of the test: API, appender, worker, expiry of holds."""
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    async with (
        direct_and_replica(database_url) as others,
        serving(database, listener, with_worker=True, **others),
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
    ):
        yield Service(client, database, database_url)
