"""Workers are killed with SIGKILL at random while events arrive: each event is folded exactly once.

LEDGER_TEST_KILLS=100 kills more of them.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

from sqlalchemy import URL

from ledger.database import Database
from ledger.log.appender import Appender
from tests.events import campaign, content, cost, follow, job, reserve
from tests.log.helpers import query, record, request, value
from tests.projections.helpers import folded, folded_up_to, position, stored, tables
from tests.projections.processes import worker_process

KILLS = int(os.environ.get("LEDGER_TEST_KILLS", "6"))
LIFE_SECONDS_MAX = 0.1

SMALL_PAGE_EVENTS = 30
"""With small pages, a worker is nearly always in the middle of one."""

BALANCES = "SELECT account_id, spent, held FROM ledger.accounts WHERE scope = '{}' ORDER BY account_id"


def job_events(chance: random.Random, campaigns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events of one job, from its beginning to its end."""
    queued = job(chance.choice(campaigns)["id"])
    of_job = {"agent_job_id": queued["id"]}
    held, still_held = reserve("0.5", **of_job), reserve("0.25", **of_job)
    spent = cost("0.125", tokens_used=10, **of_job)
    return [
        queued,
        follow(queued, "job.started"),
        held,
        still_held,
        spent,
        follow(spent, "cost.adjusted", {"amount": "-0.025", "reason": "Counted twice"}),
        follow(held, "cost.settled", {"cost": "0.375", "tokens_used": 5}),
        content(**of_job),
        # Ends the job, which releases what is still held.
        follow(queued, chance.choice(["job.completed", "job.cancelled"])),
    ]


@asynccontextmanager
async def load(database: Database, chance: random.Random) -> AsyncIterator[None]:
    """Append events while inside."""
    campaigns = [campaign("1000000") for _ in range(3)]
    await record(database, *campaigns)

    async def append_jobs(appender: Appender) -> None:
        while True:
            await appender.append(request(*job_events(chance, campaigns)))
            await asyncio.sleep(0.01)

    async with Appender(database) as appender:
        appending = asyncio.create_task(append_jobs(appender))
        yield
        appending.cancel()


async def test_after_many_kills_the_tables_equal_the_log_and_nothing_is_counted_twice(
    database: Database, database_url: URL
) -> None:
    chance = random.Random(KILLS)
    reached = [0]

    async with load(database, chance):
        for _ in range(KILLS):
            with worker_process(database_url, SMALL_PAGE_EVENTS) as worker:
                # Most are killed while they fold, the others at any time from their start on.
                if chance.random() < 0.7:
                    await folded_up_to(database, reached[-1] + chance.randint(1, 3 * SMALL_PAGE_EVENTS))
                await asyncio.sleep(chance.uniform(0, LIFE_SECONDS_MAX))
                worker.kill()
            reached.append(await position(database))
    head = await value(database, "SELECT position FROM ledger.log_head")
    with worker_process(database_url):
        await folded_up_to(database, head)

    # They were folding when they were killed.
    assert len(set(reached)) > KILLS // 3
    assert reached == sorted(reached)
    events = await stored(database)
    assert await tables(database) == folded(events)
    assert await query(database, BALANCES.format("campaign")) == await query(
        database, "SELECT id, spend, held FROM campaigns ORDER BY id"
    )
    assert await query(database, BALANCES.format("job")) == await query(
        database, "SELECT id, cost, held FROM agent_jobs ORDER BY id"
    )
    jobs = sum(event.type == "job.queued" for event in events)
    sums = await query(database, "SELECT sum(cost), sum(tokens_used), sum(held) FROM agent_jobs")
    assert sums == [(jobs * Decimal("0.475"), jobs * 15, 0)]
