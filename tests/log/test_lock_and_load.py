"""The head lock is taken before the load: an append that waited sees all that the other one wrote.

If one statement took the lock and loaded, both would use a snapshot older than the wait for the lock: a current
position with stale balances, and so an overspend.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import URL

from ledger.database import Database
from ledger.domain.errors import BudgetExceeded, IllegalTransition, VersionConflict
from ledger.domain.event import Receipt
from ledger.log.append import BEGIN_APPEND, append
from ledger.log.appender import Appender
from ledger.log.load import LOCK_AND_LOAD, Needed
from tests.events import campaign, cost, follow, job, reserve
from tests.log.helpers import connected, gathered, query, receipts, record, request, until, value

# By database, not by server process: behind a pooler the process may differ for each transaction.
IS_WAITING = """
SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


class Paused:
    """A connection that pauses before COMMIT, with the head lock held and everything written."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.written = asyncio.Event()
        self.resume = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def execute(self, statement: str, *arguments: Any) -> Any:
        if statement == "COMMIT":
            self.written.set()
            await self.resume.wait()
        return await self._connection.execute(statement, *arguments)


async def append_while_another_commits(
    database: Database, url: URL, first: dict[str, Any], second: dict[str, Any]
) -> Any:
    """Append two events, the second of which waits for the head lock until the first commits; return its answer."""
    async with database.connection() as one, database.connection() as other, connected(url) as watcher:
        paused = Paused(one)
        before = asyncio.create_task(append(paused, [request(first)]))
        await paused.written.wait()
        after = asyncio.create_task(append(other, [request(second)]))
        await until(lambda: watcher.fetchval(IS_WAITING))

        paused.resume.set()

        (verdict,), position = await before
        ((answer,),), _ = await after
    receipts(verdict)
    if isinstance(answer, Receipt) and not answer.duplicate:
        assert answer.position == position + 1
    return answer


async def test_balances_are_read_after_the_wait(database: Database, database_url: URL) -> None:
    opened = campaign(budget="10")
    await record(database, opened)

    refusal = await append_while_another_commits(
        database, database_url, cost("8", campaign_id=opened["id"]), reserve("5", campaign_id=opened["id"])
    )

    assert isinstance(refusal, BudgetExceeded)
    assert refusal.scopes == [
        {
            **{"scope": "campaign", "id": opened["id"], "limit": "10", "spent": "8", "held": "0"},
            **{"requested": "5", "available": "2"},
        }
    ]


ZEROS = "0" * 18
"""The decimals of a whole amount, as the database writes it."""


async def test_loaded_balances_are_those_that_the_other_append_stored(database: Database, database_url: URL) -> None:
    opened = campaign(budget="10")
    await record(database, opened)
    needed = Needed([UUID(opened["id"])], [], [], [], [], [], [], [])

    async with connected(database_url) as one, connected(database_url) as other, connected(database_url) as watcher:
        await one.execute(BEGIN_APPEND)
        await one.fetchrow(LOCK_AND_LOAD, *needed.arguments(None))
        await other.execute(BEGIN_APPEND)
        loading = asyncio.create_task(other.fetchrow(LOCK_AND_LOAD, *needed.arguments(None)))
        await until(lambda: watcher.fetchval(IS_WAITING))
        await one.execute("UPDATE ledger.accounts SET spent = 7")
        await one.execute("UPDATE ledger.log_head SET position = 41")
        await one.execute("COMMIT")
        loaded = await loading

    assert (loaded["head_position"], f'"USD", 10.{ZEROS}, 7.{ZEROS}' in loaded["balances"]) == (41, True)


async def test_the_limit_is_read_after_the_wait(database: Database, database_url: URL) -> None:
    opened = campaign(budget="1")
    await record(database, opened)

    receipt = await append_while_another_commits(
        database,
        database_url,
        follow(opened, "campaign.budget_changed", {"budget": "10"}),
        reserve("5", campaign_id=opened["id"]),
    )

    assert isinstance(receipt, Receipt)


async def test_the_version_is_read_after_the_wait(database: Database, database_url: URL) -> None:
    opened = campaign()
    await record(database, opened)

    refusal = await append_while_another_commits(
        database,
        database_url,
        follow(opened, "campaign.activated", expected_version=1),
        follow(opened, "campaign.archived", expected_version=1),
    )

    assert isinstance(refusal, VersionConflict)
    assert (refusal.expected, refusal.actual) == (1, 2)


async def test_an_entry_is_read_after_the_wait(database: Database, database_url: URL) -> None:
    held = reserve("5")
    await record(database, held)

    refusal = await append_while_another_commits(
        database, database_url, follow(held, "cost.released"), follow(held, "cost.released")
    )

    assert isinstance(refusal, IllegalTransition)
    assert refusal.status == "released"


async def test_a_hold_opened_during_the_wait_is_released_with_its_job(database: Database, database_url: URL) -> None:
    queued = job()
    await record(database, queued)

    await append_while_another_commits(
        database, database_url, reserve("5", agent_job_id=queued["id"]), follow(queued, "job.cancelled")
    )

    types = await query(database, "SELECT type FROM ledger.events ORDER BY position")
    assert [name for (name,) in types] == ["job.queued", "cost.reserved", "job.cancelled", "cost.released"]
    assert await query(database, "SELECT held FROM ledger.accounts") == [(0,)]
    assert await value(database, "SELECT count(*) FROM ledger.holds") == 0


@pytest.mark.parametrize("make", [campaign, cost])
async def test_an_event_recorded_during_the_wait_is_a_duplicate(
    database: Database, database_url: URL, make: Any
) -> None:
    event = make()

    receipt = await append_while_another_commits(database, database_url, event, event)

    assert (receipt.position, receipt.duplicate) == (1, True)
    assert await value(database, "SELECT count(*) FROM ledger.events") == 1


async def test_three_appenders_on_separate_pools_leave_no_gap_and_lose_no_event(
    database: Database, database_url: URL
) -> None:
    opened = campaign(budget="100")
    await record(database, opened)
    databases = [Database(database_url) for _ in range(3)]
    shared = [cost("1", campaign_id=opened["id"]) for _ in range(60)]

    async def work(database: Database) -> list[Any]:
        async with Appender(database) as appender:
            events = [*shared, *(reserve("1", campaign_id=opened["id"]) for _ in range(40))]
            return await gathered(appender.append(request(event)) for event in events)

    answers = await gathered(work(database) for database in databases)

    verdicts = [answer for verdicts in answers for (answer,) in verdicts]
    accepted = [answer for answer in verdicts if isinstance(answer, Receipt)]
    assert sum(not answer.duplicate for answer in accepted) == 60 + 40
    assert sum(isinstance(answer, BudgetExceeded) for answer in verdicts) == 3 * 40 - 40
    log = await query(database, "SELECT position, recorded_at FROM ledger.events ORDER BY position")
    assert [position for position, _ in log] == list(range(1, len(log) + 1))
    assert [at for _, at in log] == sorted(at for _, at in log)
    assert await value(database, "SELECT position FROM ledger.log_head") == len(log)
    assert await query(database, "SELECT spent, held FROM ledger.accounts") == [(60, 40)]
    for other in databases:
        await other.close()


async def test_recorded_at_never_decreases(database: Database) -> None:
    noon = datetime(2025, 1, 1, 12, tzinfo=UTC)
    clock = [noon, noon - timedelta(hours=1), noon, noon + timedelta(microseconds=1), noon - timedelta(days=400)]

    for now in clock:
        await record(database, campaign(), cost(), now=now)

    recorded = await query(database, "SELECT recorded_at FROM ledger.events ORDER BY position")
    later = noon + timedelta(microseconds=1)
    assert [at for (at,) in recorded] == [noon] * 6 + [later] * 4
    assert await value(database, "SELECT recorded_at FROM ledger.log_head") == later


async def test_the_append_transaction_has_timeouts(database: Database) -> None:
    names = "idle_in_transaction_session_timeout", "lock_timeout", "statement_timeout"

    async with database.connection() as connection:
        await connection.execute(BEGIN_APPEND)
        timeouts = [
            await connection.fetchval("SELECT setting::int FROM pg_settings WHERE name = $1", name) for name in names
        ]
        await connection.execute("ROLLBACK")

    assert all(0 < milliseconds <= 30_000 for milliseconds in timeouts)
