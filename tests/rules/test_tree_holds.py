"""Trees of jobs under concurrency: no limit of any ancestor is exceeded, and `tree_cost` is a sum.

LEDGER_TEST_TREE_JOBS sets the number of jobs (default 60; 1000 for the long run). Each client makes as many holds as a
job has on average.
"""

import asyncio
import os
import random
from collections import Counter, defaultdict
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import URL

from ledger.database import Database
from ledger.domain.errors import BudgetExceeded
from ledger.domain.event import Receipt, Request
from ledger.domain.job import LEVELS_MAX
from ledger.log.appender import Appender
from projections.rebuild import rebuild
from projections.snapshots import replay_into
from tests.audit.test_export_and_import import exported, imported
from tests.conftest import administer
from tests.events import campaign, cost, event, follow, job, reserve
from tests.log.helpers import query, request
from tests.projections.helpers import stored, tables
from tests.projections.replaying import fold_everything, tamper, verified

JOBS = int(os.environ.get("LEDGER_TEST_TREE_JOBS", "60"))
CLIENTS = 64
HOLDS_OF_EACH_CLIENT = max(6, JOBS // 16)

SUMS = """
WITH RECURSIVE line (id, ancestor_id) AS (
    SELECT id, id FROM agent_jobs
    UNION ALL
    SELECT line.id, job.parent_job_id FROM line JOIN agent_jobs AS job ON job.id = line.ancestor_id
    WHERE job.parent_job_id IS NOT NULL
)
SELECT job.id, job.tree_cost, coalesce(sum(entry.cost), 0) FROM agent_jobs AS job
JOIN line ON line.ancestor_id = job.id LEFT JOIN budget_entries AS entry ON entry.agent_job_id = line.id
GROUP BY job.id
"""

Sent = dict[str, Any]


def tree_of(number: int, campaign_id: str, chance: random.Random) -> list[Sent]:
    """Return the events of a tree: one job on each level first, the others below any of them, half with a budget."""
    jobs = [job(campaign_id, budget="40")]
    levels = {jobs[0]["id"]: 0}
    while len(jobs) < number:
        parents = [each for each in jobs if levels[each["id"]] < LEVELS_MAX]
        parent = jobs[-1] if len(jobs) <= LEVELS_MAX else chance.choice(parents)
        budget = {"budget": str(chance.randint(1, 12))} if chance.random() < 0.5 else {}
        jobs.append(job(parent_job_id=parent["id"], **budget))
        levels[jobs[-1]["id"]] = levels[parent["id"]] + 1
    assert max(levels.values()) == LEVELS_MAX
    return jobs


async def make_holds(appender: Appender, jobs: list[Sent], chance: random.Random) -> Counter[str]:
    """Reserve on any jobs; settle, release or keep each hold, and now and then record a cost or change a budget."""
    outcomes: Counter[str] = Counter()
    for _ in range(HOLDS_OF_EACH_CLIENT):
        of_job = chance.choice(jobs)
        hold = reserve(str(Decimal(chance.randint(1, 300)) / 100), agent_job_id=of_job["id"])
        (verdict,) = await appender.append(request(hold))
        outcomes[type(verdict).__name__] += 1
        then = []
        if isinstance(verdict, Receipt):
            amount = str(Decimal(chance.randint(0, 100)) / 1000)
            settled, released = follow(hold, "cost.settled", {"cost": amount}), follow(hold, "cost.released")
            then.append(chance.choice([settled, released, released, released]))
        if chance.random() < 0.05:
            then.append(cost("0.01", agent_job_id=of_job["id"]))
        if chance.random() < 0.05:
            then.append(follow(of_job, "job.budget_changed", {"budget": chance.choice([None, "2", "20"])}))
        for sent in then:
            (verdict,) = await appender.append(request(sent))
            assert isinstance(verdict, Receipt), verdict
    return outcomes


async def assert_no_hold_exceeds_a_limit(database: Database) -> None:
    """Compute all balances from the events alone: each hold that was accepted fits the limits of all its ancestors."""
    parents: dict[UUID, UUID] = {}
    limits: dict[UUID, Decimal | None] = {}
    used: defaultdict[UUID, Decimal] = defaultdict(Decimal)
    amounts: dict[UUID, Decimal] = {}
    for each in await stored(database):
        data = msgspec.json.decode(each.data)
        if "parent_job_id" in data:
            parents[each.stream_id] = UUID(data["parent_job_id"])
        if each.type in ("campaign.created", "job.queued", "job.recorded", "job.budget_changed"):
            limits[each.stream_id] = Decimal(data["budget"]) if data.get("budget") else None
        if each.category != "cost" or each.type == "cost.denied":
            continue
        amount = Decimal(data.get("amount") or data.get("cost") or 0)
        accounts = [each.campaign_id, each.agent_job_id]
        while accounts[-1] in parents:
            accounts.append(parents[accounts[-1]])
        for account in accounts:
            assert account is not None
            used[account] += amount - amounts.get(each.stream_id, 0)
            limit = limits[account]
            assert each.type != "cost.reserved" or limit is None or used[account] <= limit, each.position
        amounts[each.stream_id] = amount


async def test_holds_at_all_levels_fit_all_limits_and_tree_costs_are_sums(
    database: Database, database_url: URL, server_url: URL, template: str
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    owner = campaign("60")
    jobs = tree_of(JOBS, owner["id"], chance)
    async with Appender(database) as appender:
        for sent in [owner, *jobs]:
            (verdict,) = await appender.append(request(sent))
            assert isinstance(verdict, Receipt), verdict
        outcomes: Counter[str] = sum(
            await asyncio.gather(
                *(make_holds(appender, jobs, random.Random(seed + number)) for number in range(CLIENTS))
            ),
            Counter(),
        )
        elsewhere = event(
            "job.recorded",
            {"agent_type": "coder", "input_data": {}, "status": "cancelled", "parent_job_id": jobs[3]["id"]},
        )
        await appender.append(Request([*request(elsewhere, cost("0.5", agent_job_id=elsewhere["id"])).candidates]))
    assert set(outcomes) == {Receipt.__name__, BudgetExceeded.__name__}
    assert min(outcomes.values()) > CLIENTS // 2

    await assert_no_hold_exceeds_a_limit(database)
    await fold_everything(database)
    report, _ = await verified(database)
    assert report.is_clean, report
    before = await tables(database)
    sums = await query(database, SUMS)
    assert len(sums) == JOBS + 1
    assert all(tree_cost == expected for _, tree_cost, expected in sums)
    assert max(tree_cost for _, tree_cost, _ in sums) > 1

    await replay_into(database, "again", (await stored(database))[-1].position)
    assert await tables(database, "again") == before
    await tamper(
        database_url, "UPDATE agent_jobs SET tree_cost = tree_cost + 1, root_job_id = id, parent_job_id = NULL"
    )
    await tamper(database_url, "UPDATE ledger.accounts SET spent = spent + 1, held = 0 WHERE scope = 'job'")
    await tamper(
        database_url,
        "UPDATE ledger.streams SET state = (state::jsonb - 7 - 6 || '[[], 3]')::json WHERE category = 'job'",
    )
    await rebuild(database)
    assert await tables(database) == before
    assert (await verified(database))[0].is_clean
    await _assert_same_after_an_import(database, database_url, server_url, template)


async def _assert_same_after_an_import(database: Database, database_url: URL, server_url: URL, template: str) -> None:
    name = f"{database_url.database}_imported"
    await administer(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        async with Database(database_url.set(database=name)) as other:
            await imported(other, await exported(database))
            await fold_everything(other)
            assert await tables(other) == await tables(database)
            assert (await verified(other))[0].is_clean
    finally:
        await administer(server_url, f"DROP DATABASE {name} WITH (FORCE)")
