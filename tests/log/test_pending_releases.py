"""The holds of ended jobs: few of them are released with the job, the sweeper releases the rest."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import URL

from ledger.database import Database
from ledger.domain.errors import BudgetExceeded
from ledger.domain.event import Receipt
from ledger.log.appender import Appender
from ledger.log.expiry import expire_holds
from ledger.log.notifications import LogSignal
from ledger.log.pending_releases import FINISHED, release_pending_holds
from tests.events import campaign, follow, job, reserve
from tests.log.helpers import connected, gathered, limit_releases, query, receipts, record, request, until, value

RELEASED = "SELECT count(*) FROM ledger.events WHERE type = 'cost.released'"
HELD = "SELECT scope, held FROM ledger.accounts ORDER BY scope"
OPEN = "SELECT stream_id::text FROM ledger.holds ORDER BY stream_id"
INSERT_HOLD = "INSERT INTO ledger.holds (stream_id, amount, agent_job_id, expires_at) VALUES ($1, $2, $3, $4)"
WAITS = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""
PENDING = "SELECT job_id::text, position FROM ledger.pending_releases"


@pytest.fixture(autouse=True)
def releases_max(monkeypatch: pytest.MonkeyPatch) -> int:
    limit_releases(monkeypatch, 2)
    return 2


async def job_with_holds(database: Database, holds: int, **data: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    queued = job(**data)
    reserved = [reserve("1", agent_job_id=queued["id"]) for _ in range(holds)]
    await record(database, queued, *reserved)
    return queued, reserved


async def sweep(database: Database, appender: Appender) -> list[int]:
    """Release pending holds until none is left; return how many each step released."""
    steps = []
    while released := await release_pending_holds(database, appender):
        steps.append(released)
    return steps


@pytest.mark.parametrize("is_resident", [True, False])
async def test_the_holds_of_a_job_are_released_in_steps_and_count_until_then(
    database: Database, appender: Appender, is_resident: bool
) -> None:
    opened = campaign("5")
    queued = job(opened["id"])
    reserved = [reserve("1", agent_job_id=queued["id"]) for _ in range(5)]
    if is_resident:
        receipts(await appender.append(request(opened, queued, *reserved)))
    else:
        await record(database, opened, queued, *reserved)

    (ended,) = receipts(await appender.append(request(follow(queued, "job.cancelled"))))
    with_the_job = await value(database, RELEASED), await query(database, HELD), await query(database, PENDING)
    (refusal,) = await appender.append(request(reserve("3", campaign_id=opened["id"])))
    steps = await sweep(database, appender)
    (receipt,) = await appender.append(request(reserve("5", campaign_id=opened["id"])))

    assert with_the_job == (2, [("campaign", 3), ("job", 3)], [(queued["id"], ended.position)])
    assert isinstance(refusal, BudgetExceeded)
    assert steps == [2, 1]
    assert isinstance(receipt, Receipt)
    assert await value(database, RELEASED) == 5
    assert await query(database, HELD) == [("campaign", 5), ("job", 0)]
    assert await query(database, PENDING) == []


async def test_a_release_names_the_event_that_ended_the_job_as_its_cause(
    database: Database, appender: Appender
) -> None:
    queued, _ = await job_with_holds(database, 4)
    correlation = "00000000-0000-4000-8000-00000000000c"
    ended = follow(queued, "job.cancelled", correlation_id=correlation)
    await record(database, ended)

    await sweep(database, appender)

    causes = "SELECT causation_id::text, correlation_id::text, actor FROM ledger.events WHERE type = 'cost.released'"
    assert await query(database, causes) == [(ended["id"], correlation, "ledger")] * 4


async def test_the_new_holds_of_a_retried_job_are_kept(database: Database, appender: Appender) -> None:
    queued, _ = await job_with_holds(database, 5, max_retries=3)
    await record(database, follow(queued, "job.failed", {"error_message": "It broke"}), follow(queued, "job.retried"))
    new = [reserve("1", agent_job_id=queued["id"]) for _ in range(3)]
    await record(database, *new)

    steps = await sweep(database, appender)

    assert steps == [2, 1]
    assert {stream_id for (stream_id,) in await query(database, OPEN)} == {event["id"] for event in new}
    assert await query(database, PENDING) == []


async def test_a_job_that_ends_again_releases_all_its_holds(database: Database, appender: Appender) -> None:
    queued, _ = await job_with_holds(database, 5, max_retries=3)
    await record(database, follow(queued, "job.failed", {"error_message": "It broke"}), follow(queued, "job.retried"))
    await record(database, *(reserve("1", agent_job_id=queued["id"]) for _ in range(3)))
    await record(database, follow(queued, "job.cancelled"))

    await sweep(database, appender)

    assert await query(database, OPEN) == []
    assert await query(database, HELD) == [("job", 0)]
    assert await value(database, RELEASED) == 8


@pytest.mark.parametrize("independent", [True, False])
async def test_many_jobs_with_holds_end_in_one_request(
    database: Database, appender: Appender, independent: bool
) -> None:
    jobs = [(await job_with_holds(database, 3))[0] for _ in range(6)]
    ends = [follow(queued, "job.failed", {"error_message": "It broke"}) for queued in jobs]

    ended = receipts(await appender.append(request(*ends, independent=independent)))
    with_the_jobs = await value(database, RELEASED)
    steps = await sweep(database, appender)

    assert (len(ended), with_the_jobs, sum(steps)) == (6, 2, 16)
    assert max(steps) == 2
    assert await query(database, OPEN) == []
    assert await query(database, HELD) == [("job", 0)] * 6


async def test_a_hold_settled_meanwhile_is_not_released(database: Database, appender: Appender) -> None:
    queued, reserved = await job_with_holds(database, 5)
    await record(database, follow(queued, "job.cancelled"))
    still_open = {stream_id for (stream_id,) in await query(database, OPEN)}
    late = next(event for event in reserved if event["id"] in still_open)

    receipts(await appender.append(request(follow(late, "cost.settled", {"cost": "2"}))))
    steps = await sweep(database, appender)

    assert sum(steps) == 2
    assert await query(database, "SELECT spent, held FROM ledger.accounts") == [(2, 0)]


async def test_several_processes_release_each_hold_once(database: Database) -> None:
    queued, _ = await job_with_holds(database, 9)
    await record(database, follow(queued, "job.cancelled"))

    async def work() -> None:
        async with Appender(database) as appender:
            await sweep(database, appender)

    assert await gathered(work() for _ in range(3)) == [None] * 3

    async with Appender(database) as appender:
        await sweep(database, appender)
    assert await value(database, RELEASED) == 9
    assert await query(database, HELD) == [("job", 0)]


async def test_the_sweeper_releases_what_a_crash_left(database: Database) -> None:
    queued, _ = await job_with_holds(database, 7)
    await record(database, follow(queued, "job.cancelled"))

    async with Appender(database) as appender:
        sweeper = asyncio.create_task(expire_holds(database, appender, LogSignal()))
        await until(lambda: value(database, "SELECT NOT EXISTS (SELECT FROM ledger.pending_releases)"))
        sweeper.cancel()
        with suppress(asyncio.CancelledError):
            await sweeper

    assert await value(database, RELEASED) == 7


async def test_a_hold_that_cannot_be_released_does_not_keep_the_sweeper_busy(
    database: Database, appender: Appender
) -> None:
    queued, _ = await job_with_holds(database, 3)
    await record(database, follow(queued, "job.cancelled"))
    hold = await query(database, "SELECT stream_id, amount, agent_job_id, expires_at FROM ledger.holds")
    await sweep(database, appender)
    await query(database, INSERT_HOLD, *hold[0])
    await query(database, "INSERT INTO ledger.pending_releases VALUES ($1::text::uuid, 5)", queued["id"])

    assert await release_pending_holds(database, appender) == 0


async def test_a_row_that_changes_while_it_is_removed_is_kept(database: Database, database_url: URL) -> None:
    queued, (reserved,) = await job_with_holds(database, 1)
    await query(database, "INSERT INTO ledger.pending_releases VALUES ($1::text::uuid, 1)", queued["id"])
    hold = await query(database, "DELETE FROM ledger.holds RETURNING stream_id, amount, agent_job_id, expires_at")

    async with connected(database_url) as ending, connected(database_url) as sweeper:
        # The job ends again, with a hold that the sweeper's snapshot does not have.
        await ending.execute("BEGIN; UPDATE ledger.pending_releases SET position = 9")
        removing = asyncio.create_task(sweeper.execute(FINISHED))
        await until(lambda: value(database, WAITS))
        await ending.execute(INSERT_HOLD, *hold[0])
        await ending.execute("COMMIT")
        await removing

    assert await query(database, OPEN) == [(reserved["id"],)]
    assert await query(database, PENDING) == [(queued["id"], 9)]
