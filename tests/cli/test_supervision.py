"""`ledger up` supervises its PostgreSQL: killed under load, it is soon back, with few log lines."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from tests.cli import helpers
from tests.cli.helpers import Running, get, key_of, ledger, postgres_of, started
from tests.events import cost
from tests.log.helpers import until

KILLS = 3
CLIENTS = 4
BACK_SECONDS_MAX = 15.0
"""Generous, since other tests keep the machine busy."""
LOG_LINES_MAX = 4


@pytest.fixture
async def running(home: Path, tmp_path: Path) -> AsyncIterator[Running]:
    async with started(tmp_path, "up", "--port", "0", "--home", home) as running:
        yield running


class Load:
    """Clients that post costs, each until it is acknowledged, and the ids of the acknowledged ones."""

    def __init__(self, client: aiohttp.ClientSession) -> None:
        self._client = client
        self.acknowledged: list[str] = []
        self.stopping = asyncio.Event()
        self.statuses: set[int] = set()

    async def post(self) -> None:
        while not self.stopping.is_set():
            event = cost()
            while (status := await self._try(event)) not in (200, 201):
                self.statuses.add(status)
                await asyncio.sleep(0.05)
            self.acknowledged.append(event["id"])

    async def _try(self, event: dict[str, Any]) -> int:
        async with self._client.post("/v1/events", json=event) as answer:
            await answer.read()
            return answer.status

    async def until_more(self) -> None:
        """Wait until an event is acknowledged that was sent after now."""
        number = len(self.acknowledged) + CLIENTS + 1

        async def more() -> bool:
            return len(self.acknowledged) >= number

        await until(more)


def kill_postgresql(home: Path) -> int:
    pid = postgres_of(home)
    assert pid is not None
    postmaster = psutil.Process(pid)
    postmaster.kill()
    with suppress(psutil.NoSuchProcess):
        postmaster.wait(10)
    return pid


async def status_of(client: aiohttp.ClientSession, path: str) -> int:
    async with client.get(path) as answer:
        return answer.status


async def test_a_postgresql_killed_under_load_is_back_within_seconds_and_nothing_acknowledged_is_lost(
    running: Running, home: Path
) -> None:
    url = await running.url()
    pids, seconds, ready = [], [], []
    async with aiohttp.ClientSession(url, headers=key_of(home)) as client:
        load = Load(client)
        before = (await get(f"{url}/v1/events", home, limit=1))["head"]
        async with asyncio.TaskGroup() as clients:
            for _ in range(CLIENTS):
                clients.create_task(load.post())
            for _ in range(KILLS):
                await load.until_more()
                began = time.monotonic()
                pids.append(kill_postgresql(home))
                ready.append((await status_of(client, "/readyz"), await status_of(client, "/healthz")))
                await load.until_more()
                seconds.append(time.monotonic() - began)
                # Longer than an outage lasts after its last failure, so that the next one is another outage.
                await asyncio.sleep(2.5)
            load.stopping.set()
        head = (await get(f"{url}/v1/events", home, limit=1))["head"]

        async def is_ready() -> bool:
            return await status_of(client, "/readyz") == 200

        await until(is_ready)
    verified = await ledger("verify", "--home", home)
    await running.stop()
    lines = running.errors.read_text().splitlines()

    assert len(set(pids)) == KILLS
    assert max(seconds) < BACK_SECONDS_MAX
    assert head - before == len(load.acknowledged) == len(set(load.acknowledged))
    assert load.statuses <= {503}
    # The answer of /readyz waits for a connection, and PostgreSQL may be back by then.
    assert {status for status, _ in ready} <= {200, 503}
    assert {status for _, status in ready} == {200}
    assert verified.code == 0, verified.out
    assert sum("has ended; restarting it" in line for line in lines) == KILLS
    assert sum("the database is available again" in line for line in lines) == KILLS
    assert len(lines) <= KILLS * LOG_LINES_MAX, running.errors.read_text()


async def test_a_stop_while_postgresql_is_down_leaves_none_running(running: Running, home: Path) -> None:
    await running.url()
    kill_postgresql(home)

    code = await running.stop(signal.SIGTERM)

    assert (code, postgres_of(home)) == (0, None)
    assert "Traceback" not in running.errors.read_text()


async def test_a_service_whose_postgresql_cannot_be_brought_back_ends_with_the_reason(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = "from ledger.embedded import supervisor; supervisor.GIVE_UP_SECONDS = 1.0"
    program = f"{patience}; from ledger.cli.main import main; main()"
    monkeypatch.setattr(helpers, "LEDGER", (helpers.PYTHON, "-c", program))
    async with started(tmp_path, "up", "--port", "0", "--home", home) as running:
        await running.url()
        (home / "postgres" / "data" / "postgresql.conf").write_text("nonsense = 1\n")
        kill_postgresql(home)

        code = await asyncio.wait_for(running.process.wait(), 60)

    last = running.errors.read_text()
    assert (code, postgres_of(home)) == (1, None)
    assert "Error: PostgreSQL ended and did not restart within 1 s: PostgreSQL did not start" in last
    assert 'unrecognized configuration parameter "nonsense"' in last
    assert "Traceback" not in last
