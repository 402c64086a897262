"""Budgets under concurrency: with any number of clients and processes, no hold exceeds a limit.

LEDGER_TEST_SECONDS sets the duration of the cycles (default 5).
"""

import asyncio
import os
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from typing import Any

import aiohttp
import msgspec
import pytest
from sqlalchemy import URL

from ledger.database import Database
from ledger.log.read import EventFilter, read_all
from tests.events import campaign, event, reserve

pytestmark = pytest.mark.every_connection

CLIENTS = 64
SECONDS = float(os.environ.get("LEDGER_TEST_SECONDS", "5"))


@asynccontextmanager
async def api_process(database_url: URL) -> AsyncIterator[str]:
    """Run `ledger serve` in a separate process on this database; yield its address."""
    environment = {**os.environ, "DATABASE_URL": database_url.render_as_string(hide_password=False)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ledger", "serve", "--no-auth", "--port", "0",
        env=environment, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    assert "http://" in line, line
    try:
        yield line.split("http://")[1].split()[0]
    finally:
        process.terminate()
        await process.wait()


async def post(client: aiohttp.ClientSession, address: str, event: dict[str, Any]) -> tuple[int, Any]:
    async with client.post(f"http://{address}/v1/events", json=event) as answer:
        return answer.status, await answer.json(content_type=None)


async def balances_at_every_position(database: Database, campaign_id: str) -> list[tuple[int, Decimal, Decimal]]:
    """Compute from the log (position, spent, held) of the campaign after each of its cost events."""
    spent = held = Decimal(0)
    open_holds: dict[Any, Decimal] = {}
    balances = []
    async for page in read_all(database, EventFilter(categories=("cost",))):
        for stored in page:
            assert str(stored.campaign_id) == campaign_id
            data = msgspec.json.decode(stored.data)
            if stored.type == "cost.reserved":
                open_holds[stored.stream_id] = Decimal(data["amount"])
            elif stored.type in ("cost.settled", "cost.released", "cost.expired"):
                held -= open_holds.pop(stored.stream_id)
                spent += Decimal(data.get("cost", "0"))
                balances.append((stored.position, spent, held))
                continue
            else:
                assert stored.type == "cost.denied"
                continue
            held += open_holds[stored.stream_id]
            balances.append((stored.position, spent, held))
    return balances


@pytest.mark.parametrize("processes", [1, 3])
async def test_64_clients_get_exactly_the_holds_that_fit(processes: int, database_url: URL, database: Database) -> None:
    created = campaign(budget="5.00")
    async with AsyncExitStack() as stack, aiohttp.ClientSession() as client:
        addresses = [await stack.enter_async_context(api_process(database_url)) for _ in range(processes)]
        await post(client, addresses[0], created)

        answers = await asyncio.gather(
            *(
                post(client, addresses[number % processes], reserve("0.10", campaign_id=created["id"]))
                for number in range(CLIENTS)
            )
        )

    assert Counter(status for status, _ in answers) == {201: 50, 402: 14}
    last = (await balances_at_every_position(database, created["id"]))[-1]
    assert last[1:] == (Decimal(0), Decimal("5.00"))


@pytest.mark.parametrize("processes", [1, 3])
async def test_cycles_of_reserve_settle_and_release_never_exceed_the_limit(
    processes: int, database_url: URL, database: Database
) -> None:
    limit = Decimal("5.00")
    created = campaign(budget=str(limit))
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    async with AsyncExitStack() as stack, aiohttp.ClientSession() as client:
        addresses = [await stack.enter_async_context(api_process(database_url)) for _ in range(processes)]
        await post(client, addresses[0], created)
        end = time.monotonic() + SECONDS

        outcomes = await asyncio.gather(
            *(_cycle(client, addresses, created["id"], random.Random(seed + number), end) for number in range(CLIENTS))
        )

    total: Counter[int] = sum(outcomes, Counter())
    assert total[201] > CLIENTS
    assert set(total) <= {201, 402}
    every = await balances_at_every_position(database, created["id"])
    assert all(spent + held <= limit and held >= 0 for _, spent, held in every)


async def _cycle(
    client: aiohttp.ClientSession, addresses: Sequence[str], campaign_id: str, chance: random.Random, end: float
) -> Counter[int]:
    """Reserve, then release or settle at most the hold, repeatedly; return how often each status occurred."""
    statuses: Counter[int] = Counter()
    while time.monotonic() < end:
        hold = reserve("0.10", campaign_id=campaign_id)
        status, _ = await post(client, chance.choice(addresses), hold)
        statuses[status] += 1
        if status != 201:
            continue
        # Most holds are released, so that the budget lasts for the whole run.
        if chance.random() < 0.98:
            later = event("cost.released", stream_id=hold["id"])
        else:
            later = event("cost.settled", {"cost": chance.choice(["0.0000000001", "0.0001"])}, stream_id=hold["id"])
        status, answer = await post(client, chance.choice(addresses), later)
        assert status == 201, answer
    return statuses
