"""An append reads and writes as many rows for a long history as for a short one."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import URL

from ledger.database import Database
from ledger.domain.working_state import RELEASES_MAX
from ledger.log.append import append
from ledger.log.appender import Appender
from ledger.log.pending_releases import release_pending_holds
from tests.events import campaign, cost, follow, job, reserve
from tests.log.helpers import connected, query, receipts, record, request, until

pytestmark = pytest.mark.direct

LONG = 5_000

READ_AND_WRITTEN = """
SELECT relname, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) AS read, n_tup_ins, n_tup_upd, n_tup_del
FROM pg_stat_user_tables WHERE schemaname = 'ledger'
"""
INDEX_ROWS = """
SELECT relname, sum(idx_tup_read) FROM pg_stat_user_indexes WHERE schemaname = 'ledger' GROUP BY relname
"""

IS_ALONE = """
SELECT NOT EXISTS (
    SELECT FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
)
"""

Rows = dict[str, tuple[int, ...]]


def adjustment(entry: dict[str, Any]) -> dict[str, Any]:
    return follow(entry, "cost.adjusted", {"amount": "0.01", "reason": "Billed again"})


async def counts(url: URL) -> Rows:
    """The rows that were read and written so far, by table. A session reports its last ones when it ends."""
    async with connected(url) as connection:
        await until(lambda: connection.fetchval(IS_ALONE))
        tables = {row[0]: tuple(row)[1:] for row in await connection.fetch(READ_AND_WRITTEN)}
        return {row[0]: (*tables[row[0]], int(row[1])) for row in await connection.fetch(INDEX_ROWS)}


async def rows_of(url: URL, work: Callable[[Database], Awaitable[None]]) -> Rows:
    """Return how many rows work reads and writes, by table; its sessions end with it."""
    before = await counts(url)
    database = Database(url)
    await work(database)
    await database.close()
    after = await counts(url)
    changed = {table: tuple(new - old for new, old in zip(after[table], before[table], strict=True)) for table in after}
    return {table: rows for table, rows in changed.items() if any(rows)}


@pytest.fixture
async def entries(database_url: URL) -> tuple[dict[str, Any], dict[str, Any]]:
    """An entry with 5,000 adjustments, and one with a single adjustment."""
    opened = campaign("1000")
    long, short = cost("1", campaign_id=opened["id"]), cost("1", campaign_id=opened["id"])
    async with Database(database_url) as database:
        await record(database, opened, long, short, adjustment(short))
        for _ in range(LONG // 1_000):
            await record(database, *(adjustment(long) for _ in range(1_000)))
        await query(database, "ANALYZE ledger.cost_events")
    return long, short


async def test_one_more_adjustment_costs_the_same_by_both_paths(
    entries: tuple[dict[str, Any], dict[str, Any]], database_url: URL
) -> None:
    def by_lock(entry: dict[str, Any]) -> Callable[[Database], Awaitable[None]]:
        async def work(database: Database) -> None:
            async with database.connection() as connection:
                await append(connection, [request(adjustment(entry))])

        return work

    def by_pipeline(entry: dict[str, Any]) -> Callable[[Database], Awaitable[None]]:
        async def work(database: Database) -> None:
            async with Appender(database) as appender:
                for _ in range(2):
                    receipts(await appender.append(request(adjustment(entry))))

        return work

    long, short = entries
    for work in (by_lock, by_pipeline):
        of_short = await rows_of(database_url, work(short))
        of_long = await rows_of(database_url, work(long))

        assert of_long == of_short
        assert max(of_long["cost_events"]) < 20


async def test_a_retry_in_a_long_entry_is_found_by_its_id(
    entries: tuple[dict[str, Any], dict[str, Any]], database_url: URL
) -> None:
    long, _ = entries
    again = adjustment(long)
    async with Database(database_url) as database:
        await record(database, again)

    async def work(database: Database) -> None:
        async with Appender(database) as appender:
            (receipt,) = receipts(await appender.append(request(again)))
            assert receipt.duplicate

    assert max((await rows_of(database_url, work))["cost_events"]) < 20


async def test_the_end_of_a_job_reads_and_releases_a_bounded_number_of_holds(database_url: URL) -> None:
    few, many = job(), job()
    async with Database(database_url) as database:
        await record(database, few, many)
        for queued, holds in ((few, 600), (many, 3_000)):
            for _ in range(holds // 600):
                await record(database, *(reserve(agent_job_id=queued["id"], expires_in=86_400) for _ in range(600)))
        await query(database, "ANALYZE ledger.holds")

    def ending(queued: dict[str, Any]) -> Callable[[Database], Awaitable[None]]:
        async def work(database: Database) -> None:
            await record(database, follow(queued, "job.cancelled"))

        return work

    of_few = await rows_of(database_url, ending(few))
    of_many = await rows_of(database_url, ending(many))

    assert {table: rows[1:4] for table, rows in of_many.items()} == {
        "job_events": (1, 0, 0),
        "cost_events": (RELEASES_MAX, 0, 0),
        "entries": (RELEASES_MAX, 0, 0),
        "holds": (0, 0, RELEASES_MAX),
        "accounts": (0, 1, 0),
        "streams": (0, 1, 0),
        "pending_releases": (1, 0, 0),
        "log_head": (0, 1, 0),
    }
    # Of a small number of holds PostgreSQL may read all before it takes the first ones.
    more = {
        table: (rows, of_few[table])
        for table, rows in of_many.items()
        if any(many > few for many, few in zip(rows, of_few[table], strict=True))
    }
    assert more == {}


async def test_the_holds_of_other_jobs_do_not_matter(database_url: URL) -> None:
    small, large = job(), job()
    async with Database(database_url) as database:
        await record(database, small, large, *(reserve(agent_job_id=small["id"]) for _ in range(3)))
        for _ in range(5):
            await record(database, *(reserve(agent_job_id=large["id"], expires_in=86_400) for _ in range(1_000)))
        await query(database, "ANALYZE ledger.holds, ledger.cost_events")

    async def end(database: Database) -> None:
        await record(database, follow(small, "job.cancelled"))

    rows = await rows_of(database_url, end)

    assert max(rows["holds"]) <= 20
    assert max(rows["cost_events"]) <= 20


async def test_a_step_of_the_sweeper_reads_no_more_than_it_releases(database_url: URL) -> None:
    ended, running = job(), job()
    async with Database(database_url) as database:
        await record(database, ended, running)
        for _ in range(2):
            for queued in (ended, running):
                await record(database, *(reserve(agent_job_id=queued["id"], expires_in=86_400) for _ in range(1_000)))
        await record(database, follow(ended, "job.cancelled"))
        await query(database, "ANALYZE ledger.holds, ledger.cost_events, ledger.pending_releases, ledger.job_events")

    async def sweep(database: Database) -> None:
        async with Appender(database) as appender:
            assert await release_pending_holds(database, appender) == RELEASES_MAX

    rows = await rows_of(database_url, sweep)

    # Found, loaded, deleted: by NEXT_HOLDS, `ledger.load_state` and `ledger.store_states`.
    assert max(rows["holds"]) <= 3 * RELEASES_MAX
    assert max(rows["cost_events"]) <= 4 * RELEASES_MAX
