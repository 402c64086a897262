"""A pooler with one server connection: no task keeps it, or needs a second one meanwhile."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from ledger.audit import sealer as sealing
from ledger.database import Database
from ledger.log.appender import Appender
from projections import prefetch
from projections.worker import fold_page
from tests.audit.sealing import RecordingFiles, fill, sealer_of
from tests.events import cost
from tests.log.helpers import record, request
from tests.projections.helpers import CountingReader
from tests.servers.pgbouncer import pgbouncer
from tests.servers.postgresql import PostgreSQL

STATEMENT_SECONDS_MAX = 5.0


@pytest.fixture(scope="module")
def single_connection(plain_server: PostgreSQL) -> Iterator[URL]:
    with pgbouncer(plain_server.url, pool_size=1) as url:
        yield url


@pytest.fixture
async def database(single_connection: URL, migrated: URL) -> AsyncIterator[Database]:
    database = Database(single_connection.set(database=migrated.database), statement_seconds_max=STATEMENT_SECONDS_MAX)
    async with database.connection() as connection:
        await connection.execute("SELECT 1")
    assert database.is_pooled
    yield database
    await database.close()


async def test_a_long_log_is_sealed_with_one_connection(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "CHUNK_EVENTS", 300)
    await fill(database, 1_000)

    sealer = await sealer_of(database, RecordingFiles(tmp_path))

    assert await sealer.seal() == 1_000


async def test_a_worker_far_behind_reads_on_the_connection_that_it_holds(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefetch, "PREFETCH_EVENTS_MIN", 2)
    await record(database, *(cost() for _ in range(50)))
    reader = CountingReader(database)

    folded = [await fold_page(database, 10, reader=reader) for _ in range(6)]
    await reader.close()

    assert (folded, reader.started) == ([10, 10, 10, 10, 10, 0], [])


async def test_other_tasks_get_the_connection_during_continuous_appends(database: Database) -> None:
    stopping, chance = asyncio.Event(), random.Random(1)

    async def send(appender: Appender) -> None:
        while not stopping.is_set():
            await appender.append(request(cost()))
            # Short enough that requests are always queued when a group ends.
            await asyncio.sleep(chance.random() * 0.003)

    async with Appender(database) as appender:
        senders = [asyncio.create_task(send(appender)) for _ in range(40)]
        served = 0
        end = time.monotonic() + 2
        while time.monotonic() < end:
            async with database.connection() as connection:
                served += await connection.fetchval("SELECT 1")
        stopping.set()
        await asyncio.gather(*senders)

    assert served > 3
