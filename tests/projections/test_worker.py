"""The worker folds each event exactly once, wherever pages end, however many workers there are."""

import asyncio
import itertools
import random
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import URL

from ledger.database import Database
from ledger.domain.catalogue import CATALOGUE
from ledger.domain.event import Receipt, Request
from ledger.log.append import append
from ledger.log.appender import Appender
from ledger.log.notifications import LogSignal
from projections import page
from projections import worker as worker_module
from projections.rows import COUNTER_MAX
from projections.worker import Worker, fold_page
from tests.domain.helpers import DATA as REQUIRED_DATA
from tests.events import campaign, content, cost, follow, job, reserve
from tests.log.helpers import connected, gathered, query, record, request, until, value
from tests.projections.helpers import (
    append_requests,
    folded,
    folded_up_to,
    position,
    running_workers,
    sample_history,
    stored,
    tables,
)

pytestmark = pytest.mark.every_connection


async def fold_all(database: Database, sizes: Sequence[int]) -> None:
    """Fold the log in pages of these sizes, in turn."""
    for size in itertools.cycle(sizes):
        if not await fold_page(database, size):
            return


OF_ENTITIES = {name for name, kind in CATALOGUE.items() if kind.category != "ledger"}


def test_the_sample_history_has_every_event_type_of_the_catalogue() -> None:
    types = {each.candidates[0].event_type.name for each in sample_history()} | {"cost.denied"}

    assert types == OF_ENTITIES


@pytest.mark.parametrize("sizes", [[1], [2], [3], [7], [1, 30], [13, 1, 1], [5_000]])
async def test_the_tables_are_the_same_wherever_pages_end(database: Database, sizes: list[int]) -> None:
    await append_requests(database, sample_history())

    await fold_all(database, sizes)

    events = await stored(database)
    assert {event.type for event in events} == OF_ENTITIES
    assert await tables(database) == folded(events)
    assert await position(database) == len(events)


@pytest.mark.parametrize("part", [1, 2, 3, 7])
async def test_the_tables_are_the_same_wherever_parts_of_a_page_end(
    database: Database, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    await append_requests(database, sample_history())
    monkeypatch.setattr(page, "PART_EVENTS", part)

    await fold_all(database, [5_000])

    assert await tables(database) == folded(await stored(database))


CHANGES = [
    name
    for name, kind in CATALOGUE.items()
    if not kind.opens_stream and not kind.by_service and kind.category != "price"
]
DATA: dict[str, dict[str, Any]] = REQUIRED_DATA | {
    "campaign.budget_changed": {"budget": "50"},
    "campaign.metrics_recorded": {"clicks": 3, "revenue": "1.23"},
    "content.assigned": {"campaign_id": None},
    "job.failed": {"error_message": "It broke"},
    "cost.settled": {"cost": "3.5", "tokens_used": 5},
    "cost.adjusted": {"amount": "-0.25", "reason": "Why"},
}


def random_history(chance: random.Random, number: int) -> list[Request]:
    """Requests of one event each, valid or not, for few entities, so that they often refer to each other."""
    opened: dict[str, list[dict[str, Any]]] = {"campaign": [], "job": [], "content": [], "cost": []}

    def reference(category: str) -> dict[str, str]:
        field = {"campaign": "campaign_id", "job": "agent_job_id"}[category]
        known = opened[category]
        return {field: chance.choice(known)["id"]} if known and chance.random() < 0.7 else {}

    makers = [
        lambda: campaign("20"),
        job,
        lambda: job(**reference("campaign")),
        *[
            lambda make=make: make(**reference("campaign"), **reference("job"))
            for make in (content, cost, reserve, reserve)
        ],
    ]
    requests = []
    for _ in range(number):
        change = chance.choice(CHANGES)
        known = opened[change.split(".")[0]]
        if known and chance.random() < 0.7:
            event = follow(chance.choice(known), change, DATA[change])
        else:
            event = chance.choice(makers)()
            opened[event["type"].split(".")[0]].append(event)
        requests.append(request(event))
    return requests


@pytest.mark.randomized
@pytest.mark.parametrize("seed", range(4))
async def test_tables_folded_in_random_pages_equal_one_fold_of_the_log(
    database: Database, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    await append_requests(database, random_history(chance, 800))

    await fold_all(database, [chance.choice([1, 2, 5, 20, 100]) for _ in range(50)])

    events = await stored(database)
    assert len(events) > 150
    assert {"campaign.deleted", "job.deleted", "content.deleted", "cost.released"} <= {event.type for event in events}
    assert await tables(database) == folded(events)


DELETED, ENDED = campaign(), job()
OF_BOTH = content(campaign_id=DELETED["id"], agent_job_id=ENDED["id"])
OF_CAMPAIGN = job(DELETED["id"])
DELETION = [
    DELETED,
    ENDED,
    OF_BOTH,
    OF_CAMPAIGN,
    follow(ENDED, "job.cancelled"),
    follow(DELETED, "campaign.deleted"),
    follow(ENDED, "job.deleted"),
    follow(OF_CAMPAIGN, "job.started"),
]


@pytest.mark.parametrize("first_page", range(1, len(DELETION) + 1))
async def test_references_to_a_deleted_row_are_null_wherever_the_page_ends(
    database: Database, monkeypatch: pytest.MonkeyPatch, first_page: int
) -> None:
    for event in DELETION:
        await record(database, event)

    await fold_all(database, [first_page, 100])

    found = await tables(database)
    (asset,), (left,) = found["content_assets"].values(), found["agent_jobs"].values()
    assert (asset["campaign_id"], asset["agent_job_id"], asset["position"]) == (None, None, 3)
    assert (left["id"], left["campaign_id"], left["position"]) == (UUID(OF_CAMPAIGN["id"]), None, 8)
    assert (found["campaigns"], found) == ({}, folded(await stored(database)))


async def test_several_workers_at_once_fold_each_event_once(
    database: Database, database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "FOLD_PAGE_EVENTS_MAX", 7)
    opened = campaign("1000")
    databases = [Database(database_url, pool_size=2) for _ in range(4)]
    async with running_workers(*databases), Appender(database) as appender:
        await appender.append(request(opened))
        await gathered(appender.append(request(cost("0.1", campaign_id=opened["id"]), cost())) for _ in range(200))
        await folded_up_to(database, 401)

    assert str(await value(database, "SELECT spend FROM campaigns")) == "20.000000000000000000"
    assert await tables(database) == folded(await stored(database))
    for other in databases:
        await other.close()


async def test_a_worker_killed_in_the_middle_of_a_page_writes_nothing(database: Database, database_url: URL) -> None:
    opened = campaign()
    await record(database, opened, cost(campaign_id=opened["id"]))
    blocked = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

    async with connected(database_url) as holder, connected(database_url) as other:
        await holder.execute("BEGIN; LOCK TABLE budget_entries IN EXCLUSIVE MODE")
        folding = asyncio.create_task(fold_page(database))
        await until(lambda: other.fetchval(f"SELECT pg_terminate_backend(pid) {blocked}"))
        (failure,) = await gathered([folding])
        left = await other.fetchval("SELECT count(*) FROM campaigns")
        await holder.execute("COMMIT")

    assert isinstance(failure, Exception)
    assert (left, await position(database)) == (0, 0)
    assert await fold_page(database) == 2
    assert await tables(database) == folded(await stored(database))


async def test_a_second_worker_does_nothing_while_the_first_folds_a_page(database: Database, database_url: URL) -> None:
    await record(database, cost())
    async with connected(database_url) as first:
        await first.execute("BEGIN; SELECT FROM ledger.projection_checkpoints FOR UPDATE")

        assert await fold_page(database) is None

    assert await fold_page(database) == 1


async def test_a_notification_wakes_an_idle_worker(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "IDLE_SECONDS_MIN", 600)
    signal = LogSignal()
    worker = Worker(database, signal)
    running = asyncio.create_task(worker.run())
    await asyncio.wait({running}, timeout=0.2)

    await record(database, cost())
    signal.notify()

    await folded_up_to(database, 1)
    worker.stop()
    await asyncio.wait_for(running, 5)


async def test_counters_in_the_tables_stop_at_the_range_of_a_bigint(database: Database) -> None:
    opened = campaign()
    queued = job(opened["id"])
    await record(database, opened, queued, follow(opened, "campaign.activated"))
    await fold_page(database)
    await query(database, f"UPDATE campaigns SET clicks = {COUNTER_MAX - 1}")
    await query(database, f"UPDATE agent_jobs SET tokens_used = {COUNTER_MAX - 1}")

    await record(database, follow(opened, "campaign.metrics_recorded", {"clicks": 10**12}))
    await record(database, cost(agent_job_id=queued["id"], tokens_used=10**12))
    await fold_page(database)

    counters = "SELECT clicks, tokens_used FROM campaigns, agent_jobs"
    assert await query(database, counters) == [(COUNTER_MAX, COUNTER_MAX)]


async def test_sums_in_the_tables_may_exceed_the_range_of_one_amount(database: Database) -> None:
    opened, largest = campaign(), "9999999999.999999999999999999"
    queued = job(opened["id"])
    await record(database, opened, queued, follow(opened, "campaign.activated"))
    await record(database, *(cost(largest, agent_job_id=queued["id"]) for _ in range(3)))
    await record(database, *(follow(opened, "campaign.metrics_recorded", {"revenue": largest}) for _ in range(2)))

    await fold_page(database)

    sums = "SELECT spend::text, cost::text, revenue::text, roi::text FROM campaigns, agent_jobs"
    assert await query(database, sums) == [
        (
            "29999999999.999999999999999997",
            "29999999999.999999999999999997",
            "19999999999.999999999999999998",
            "-0.3333333333",
        )
    ]


async def test_an_adjustment_may_exceed_the_range_of_one_amount(database: Database) -> None:
    recorded = cost("9999999999.999999999999999999")
    await record(database, recorded, follow(recorded, "cost.adjusted", {"amount": "2e-18", "reason": "More"}))

    await fold_page(database)

    assert str(await value(database, "SELECT cost FROM budget_entries")) == "10000000000.000000000000000001"


async def test_a_duplicate_or_refused_event_is_not_folded(database: Database) -> None:
    opened = campaign("1")
    requests = [
        request(opened),
        request(opened),
        request(follow(opened, "campaign.paused")),
        request(cost("2", campaign_id=opened["id"])),
    ]
    async with database.connection() as connection:
        verdicts, head = await append(connection, requests)

    await fold_page(database)

    assert [isinstance(verdict[0], Receipt) for verdict in verdicts] == [True, True, False, True]
    assert (head, await position(database)) == (2, 2)
    assert await query(database, "SELECT status, spend FROM campaigns") == [("draft", 2)]
