"""PostgreSQL restarted, suspended, killed under load: answers in time, events recorded once."""

import asyncio
import os
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import aiohttp
import psutil
import pytest
from sqlalchemy import URL

from ledger.api.app import listen, serving
from ledger.database import STATEMENT_SECONDS_MAX, Database
from tests.api.helpers import follow_pages
from tests.conftest import Service
from tests.events import cost
from tests.servers.postgresql import PostgreSQL

CLIENTS = 12
SUSPEND_SECONDS = float(os.environ.get("LEDGER_TEST_PAUSE_SECONDS", "20"))
ANSWER_SECONDS_MAX = 45.0
WARM_UP_SECONDS = 1.5


def restart(server: PostgreSQL) -> None:
    server.stop("fast")
    time.sleep(1)
    server.restart()


def suspend(server: PostgreSQL) -> None:
    """Suspend every process of the server, as on a suspended machine."""
    postmaster = psutil.Process(server.pid)
    processes = [postmaster, *postmaster.children(recursive=True)]
    for process in processes:
        process.suspend()
    time.sleep(SUSPEND_SECONDS)
    for process in processes:
        process.resume()


def kill(server: PostgreSQL) -> None:
    postmaster = psutil.Process(server.pid)
    for process in [*postmaster.children(recursive=True), postmaster]:
        # A process whose session just ended may not exist any more.
        with suppress(psutil.NoSuchProcess):
            process.kill()
    postmaster.wait(10)
    time.sleep(1)
    server.restart()


class Load:
    """Clients that post costs and read the spend until `stopping` is set."""

    def __init__(self, client: aiohttp.ClientSession) -> None:
        self._client = client
        self.stopping = asyncio.Event()
        self.acknowledged: list[str] = []
        self.errors: list[aiohttp.ClientResponse] = []
        self.seconds_max = 0.0

    async def _send(self, method: str, path: str, body: Any = None) -> aiohttp.ClientResponse:
        started = time.monotonic()
        async with self._client.request(method, path, json=body) as answer:
            await answer.read()
        self.seconds_max = max(self.seconds_max, time.monotonic() - started)
        if answer.status >= 400:
            self.errors.append(answer)
            await asyncio.sleep(0.2)
        return answer

    async def post(self) -> None:
        while not self.stopping.is_set():
            event = cost() | {"id": str(uuid.uuid4())}
            # Retry until it is acknowledged, even after `stopping` is set.
            while (await self._send("POST", "/v1/events", event)).status not in (200, 201):
                pass
            self.acknowledged.append(event["id"])

    async def read(self) -> None:
        while not self.stopping.is_set():
            await self._send("GET", "/v1/spend")
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("outage", [restart, suspend, kill])
async def test_an_outage_under_load_delays_no_answer_too_long_and_records_each_event_once(
    plain_server: PostgreSQL, migrated: URL, outage: Callable[[PostgreSQL], None]
) -> None:
    database = Database(migrated, statement_seconds_max=STATEMENT_SECONDS_MAX)
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    async with (
        serving(database, listener, with_worker=True),
        aiohttp.ClientSession(f"http://127.0.0.1:{port}", timeout=aiohttp.ClientTimeout(120)) as client,
    ):
        load = Load(client)
        tasks = [asyncio.create_task(load.post()) for _ in range(CLIENTS)]
        tasks += [asyncio.create_task(load.read()) for _ in range(4)]
        await asyncio.sleep(WARM_UP_SECONDS)
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            while not load.acknowledged:
                await asyncio.sleep(0.05)
        before = len(load.acknowledged)

        await asyncio.to_thread(outage, plain_server)

        during = len(load.acknowledged)
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            while len(load.acknowledged) < during + 100:
                await asyncio.sleep(0.05)
        load.stopping.set()
        await asyncio.gather(*tasks)
        service = Service(client, database, migrated)
        entries = [entry["id"] for entry in await follow_pages(service, "/v1/budget-entries", limit=500)]
        head = await service.head()
    await database.close()

    assert before
    assert sorted(entries) == sorted(load.acknowledged)
    assert head == len(load.acknowledged)
    assert load.errors
    assert {answer.status for answer in load.errors} == {503}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in load.errors)
    assert load.seconds_max < ANSWER_SECONDS_MAX
    print(f"{outage.__name__}: {len(entries)} costs, {len(load.errors)} errors, slowest {load.seconds_max:.1f} s")
