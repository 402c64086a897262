"""`ledger serve` and `ledger worker` as separate processes on a configured database."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import URL

from ledger.database import Database
from tests.cli.helpers import Running, key_of, ledger, started
from tests.events import campaign, cost, reserve
from tests.log.helpers import query, until

pytestmark = pytest.mark.every_connection

IS_RUNNING = "The worker is running"


@pytest.fixture
async def served(database_url: URL, tmp_path: Path) -> AsyncIterator[tuple[Running, aiohttp.ClientSession]]:
    """`ledger serve` on the test's database, and a client of it."""
    async with (
        started(tmp_path, "serve", "--no-auth", "--port", "0", database=database_url) as running,
        aiohttp.ClientSession(await running.url()) as client,
    ):
        yield running, client


async def post(client: aiohttp.ClientSession, *events: dict[str, Any]) -> int:
    """Append events that must be accepted; return the position of the last."""
    async with client.post("/v1/events", json=list(events)) as answer:
        body = await answer.json()
        assert answer.status == 201, body
        return int(body["position"])


async def test_a_worker_process_folds_what_a_server_process_appends(
    served: tuple[Running, aiohttp.ClientSession], database_url: URL, tmp_path: Path
) -> None:
    server, client = served
    opened = campaign("100")
    await post(client, opened, reserve("5", campaign_id=opened["id"], expires_in=1))
    async with client.get("/readyz") as answer:
        ready_without_worker = answer.status

    async with started(tmp_path, "worker", database=database_url) as worker:
        await worker.line(IS_RUNNING)
        spends = []
        for _ in range(5):
            position = await post(client, cost("1", campaign_id=opened["id"]))
            async with client.get(f"/v1/campaigns/{opened['id']}", params={"min_position": position}) as answer:
                spends.append(Decimal((await answer.json())["spend"]))

        async def hold_has_expired() -> bool:
            async with client.get(f"/v1/campaigns/{opened['id']}") as answer:
                return bool((await answer.json())["held"] == "0")

        await until(hold_has_expired)
        codes = [await worker.stop(), await server.stop()]

    assert ready_without_worker == 200
    assert spends == [1, 2, 3, 4, 5]
    assert codes == [0, 0]


async def test_several_workers_and_servers_share_one_ledger(
    served: tuple[Running, aiohttp.ClientSession], database_url: URL, tmp_path: Path, database: Database
) -> None:
    _, client = served
    opened = campaign("100")
    await post(client, opened)
    async with (
        started(tmp_path, "serve", "--no-auth", "--port", "0", database=database_url) as other,
        started(tmp_path, "worker", database=database_url) as one,
        started(tmp_path, "worker", database=database_url) as two,
    ):
        await asyncio.gather(one.line(IS_RUNNING), two.line(IS_RUNNING))
        async with aiohttp.ClientSession(await other.url()) as other_client:
            positions = await asyncio.gather(
                *(post(each, cost("1", campaign_id=opened["id"])) for each in (client, other_client) for _ in range(50))
            )
            # The active worker is killed, and the other takes over.
            await one.stop(9)
            last = await post(other_client, cost("1", campaign_id=opened["id"]))
            async with client.get(f"/v1/campaigns/{opened['id']}", params={"min_position": last}) as answer:
                shown = await answer.json()

    assert sorted(positions) == list(range(2, 102))
    assert (last, shown["spend"]) == (102, "101")
    assert await query(database, "SELECT spent FROM ledger.accounts") == [(101,)]


async def test_a_database_that_is_not_migrated_is_refused_with_the_next_step(empty_database_url: URL) -> None:
    answers = await asyncio.gather(
        ledger("serve", "--port", "0", database=empty_database_url), ledger("worker", database=empty_database_url)
    )

    for result in answers:
        assert result.code == 1
        assert "run `ledger migrate`" in result.err
        assert "Traceback" not in result.err


async def test_up_migrates_and_uses_the_configured_database(empty_database_url: URL, tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with started(tmp_path, "up", "--demo", "--port", "0", "--home", home, database=empty_database_url) as running:
        url = await running.url()
        async with aiohttp.ClientSession(url, headers=key_of(home)) as client, client.get("/v1/events") as answer:
            head = (await answer.json())["head"]
        code = await running.stop()

    assert (head > 20, code, (home / "postgres").exists()) == (True, 0, False)
    assert str(empty_database_url.password) not in running.output
