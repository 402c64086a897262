"""Reads from a streaming replica: positions, no older data than requested, outages."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

import asyncpg
import pytest
from sqlalchemy import URL

from ledger.api import replica as reading
from ledger.api.app import listen, serving
from ledger.database import Database
from tests.api.helpers import eventually
from tests.cli.helpers import plain
from tests.conftest import Service, aiohttp
from tests.connections.conftest import migrated_on
from tests.events import campaign, cost
from tests.servers.postgresql import REPLICATION_RULES, PostgreSQL, postgresql, replica_of


class Pair(NamedTuple):
    """A primary that does not wait for its replica."""

    primary: PostgreSQL
    replica: PostgreSQL


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with postgresql("secret", REPLICATION_RULES) as primary, replica_of(primary) as replica:
        yield Pair(primary, replica)


async def on_replica(pair: Pair, statement: str, database: str = "postgres") -> object:
    connection = await asyncpg.connect(plain(pair.replica.url.set(database=database)))
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


@pytest.fixture
async def service(pair: Pair) -> AsyncIterator[Service]:
    """A service that appends to the primary and reads from the replica."""
    async with migrated_on(pair.primary.url) as url:
        database, replica = Database(url), Database(pair.replica.url.set(database=url.database))
        listener = listen("127.0.0.1", 0)
        port = listener.getsockname()[1]
        async with (
            serving(database, listener, with_worker=True, replica=replica),
            aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
        ):
            service = Service(client, database, url)
            await service.append(campaign())
            await replica_is_at(pair, url, 1)
            yield service
        await replica.close()
        await database.close()


async def replica_is_at(pair: Pair, url: URL, position: int) -> None:
    async def reached() -> bool:
        try:
            query = "SELECT position >= $1 FROM ledger.projection_checkpoints".replace("$1", str(position))
            return bool(await on_replica(pair, query, str(url.database)))
        except asyncpg.PostgresError:
            return False

    await eventually(reached)


@pytest.fixture
async def behind(pair: Pair, service: Service) -> AsyncIterator[int]:
    """Pause the replica at position 1; the value is the position of the primary."""
    await on_replica(pair, "SELECT pg_wal_replay_pause()")
    (receipt,) = await service.append(cost())
    try:
        yield receipt["position"]
    finally:
        await on_replica(pair, "SELECT pg_wal_replay_resume()")


async def position_of(service: Service, path: str, **headers: str) -> tuple[int, int]:
    async with service.client.get(path, headers=headers) as answer:
        await answer.read()
        return answer.status, int(answer.headers["Ledger-Position"])


async def test_a_read_has_the_position_of_the_replica_that_answered(service: Service, behind: int) -> None:
    assert behind == 2
    for path in ("/v1/campaigns", "/v1/budget-entries", "/v1/spend", "/v1/events"):
        assert await position_of(service, path) == (200, 1)


@pytest.mark.parametrize(
    "path", ["/v1/budget-entries", "/v1/spend", "/v1/events", "/v1/events?after=2", "/v1/budget-entries?min_position=2"]
)
async def test_a_read_with_a_later_minimum_position_is_answered_by_the_primary(
    service: Service, behind: int, path: str
) -> None:
    headers = {} if "?" in path else {"Ledger-Min-Position": str(behind)}

    started = time.monotonic()
    status, position = await position_of(service, path, **headers)

    assert (status, position) == (200, behind)
    assert time.monotonic() - started < reading.WAIT_SECONDS_MAX + 3


async def test_a_resource_that_the_replica_does_not_have_yet_is_read_from_the_primary(
    service: Service, behind: int
) -> None:
    async with service.client.get("/v1/budget-entries", params={"min_position": str(behind)}) as answer:
        (entry,) = (await answer.json())["items"]

    async with service.client.get(f"/v1/budget-entries/{entry['id']}") as answer:
        assert answer.status == 200
    async with service.client.get(f"/v1/events/{behind}") as answer:
        assert answer.status == 200
    async with service.client.get(f"/v1/streams/cost/{entry['id']}") as answer:
        assert answer.status == 200
    async with service.client.get(f"/v1/budget-entries/{entry['id']}", params={"as_of": str(behind)}) as answer:
        assert answer.status == 200
    async with service.client.get("/v1/events/3") as answer:
        assert answer.status == 404


async def test_the_status_of_the_projections_is_read_from_the_primary(service: Service, behind: int) -> None:
    async def caught_up() -> bool:
        (one, *_) = (await (await service.client.get("/v1/projections")).json())["items"]
        return bool(one["position"] == behind)

    await eventually(caught_up)


async def test_reads_succeed_during_an_outage_of_the_replica_and_use_it_again_afterwards(
    pair: Pair, service: Service, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "OUTAGE_SECONDS", 0.2)
    monkeypatch.setattr(reading, "CHECK_SECONDS", 0.1)
    caplog.set_level(logging.WARNING, "ledger.api.replica")
    assert await position_of(service, "/v1/spend") == (200, 1)

    pair.replica.stop()
    answers = await asyncio.gather(*(position_of(service, "/v1/spend") for _ in range(30)))
    await asyncio.sleep(0.5)
    answers.append(await position_of(service, "/v1/events"))
    warnings = [record.message for record in caplog.records]
    pair.replica.restart()

    async def is_back() -> bool:
        await position_of(service, "/v1/spend")
        return "the replica responds again" in caplog.text

    await eventually(is_back)
    assert answers == [(200, 1)] * 31
    assert len(warnings) == 1
    assert "reading from the primary" in warnings[0]
