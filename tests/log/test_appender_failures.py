"""The database fails during appends: every request is answered, every event recorded once or never."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import asyncpg
import msgspec
import pytest
from sqlalchemy import URL

from ledger.database import Database
from ledger.domain.errors import DatabaseUnavailable
from ledger.domain.event import Receipt, Request
from ledger.log import pipeline
from ledger.log.appender import Appender
from ledger.log.load import Needed
from ledger.log.resident_state import ResidentState
from ledger.log.write import write_conditionally
from tests.events import campaign, cost, follow, job, reserve
from tests.log.helpers import (
    WAITING_FOR_LOCK,
    candidate,
    connected,
    gathered,
    head_locked,
    query,
    receipts,
    record,
    request,
    turns,
    until,
    value,
)

WAITING_PID = WAITING_FOR_LOCK.replace("count(*)", "pid") + " AND pid <> ALL ($1)"
TERMINATE_ALL = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


async def terminate_waiting_appends(connection: Any, times: int) -> None:
    """Terminate the session of the append that waits for the head lock, then that of its retry, and so on."""
    terminated: list[int] = []
    while len(terminated) < times:
        terminated.append(await until(lambda: connection.fetchval(WAITING_PID, terminated)))
        await connection.execute(f"SELECT pg_terminate_backend({terminated[-1]})")


async def test_an_append_whose_connection_is_terminated_succeeds_on_retry(
    appender: Appender, database: Database, database_url: URL
) -> None:
    async with connected(database_url) as other:
        async with head_locked(database_url) as appends_wait:
            tasks = [asyncio.create_task(appender.append(request(cost())))]
            await appends_wait()
            tasks += [asyncio.create_task(appender.append(request(cost()))) for _ in range(10)]
            await turns()
            await terminate_waiting_appends(other, 1)
        answers = await gathered(tasks)

    assert sorted(receipts(answer)[0].position for answer in answers) == list(range(1, 12))
    assert await value(database, "SELECT count(*) FROM ledger.events") == 11


async def test_with_all_connections_terminated_several_times_each_event_is_recorded_once(
    appender: Appender, database: Database, database_url: URL
) -> None:
    opened = campaign(budget="1000")
    await record(database, opened)
    answered: list[Any] = []

    async def client() -> None:
        for _ in range(30):
            event = cost("1", campaign_id=opened["id"])
            while True:
                try:
                    answered.extend(receipts(await appender.append(request(event))))
                    break
                except DatabaseUnavailable:
                    continue

    async with connected(database_url) as other, asyncio.TaskGroup() as clients:
        for _ in range(10):
            clients.create_task(client())
        for reached in (30, 120, 210):

            async def appended(reached: int = reached) -> bool:
                return len(answered) >= reached

            await until(appended)
            await other.fetch(TERMINATE_ALL)

    assert sorted(receipt.position for receipt in answered) == list(range(2, 302))
    assert await value(database, "SELECT count(*) FROM ledger.events") == 301
    assert await query(database, "SELECT spent FROM ledger.accounts") == [(300,)]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_failed_write_is_retried_whether_or_not_it_was_committed(
    database: Database, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    failures = [asyncpg.ConnectionDoesNotExistError("cut")]

    async def failing_once(*arguments: Any) -> Any:
        if failures and when == "before":
            raise failures.pop()
        answer = await write_conditionally(*arguments)
        if failures:
            raise failures.pop()
        return answer

    monkeypatch.setattr(pipeline, "write_conditionally", failing_once)
    opened = campaign()
    async with Appender(database) as appender:
        created, spent = receipts(await appender.append(request(opened, cost("3", campaign_id=opened["id"]))))

    committed = when == "after"
    assert (created.position, created.duplicate, spent.position, spent.duplicate) == (1, committed, 2, committed)
    assert await query(database, "SELECT spent FROM ledger.accounts") == [(3,)]
    assert await value(database, "SELECT count(*) FROM ledger.events") == 2


@pytest.mark.parametrize("make", [campaign, cost])
async def test_an_event_id_that_the_load_did_not_return_violates_the_index_and_is_judged_again(
    database: Database, monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    event = make()
    await record(database, event)
    nothing = [Needed([], [], [], [], [], [], [], [])]
    needed_by = ResidentState.needed_by

    async def needs_nothing_once(state: ResidentState, requests: Sequence[Request]) -> Needed:
        return nothing.pop() if nothing else await needed_by(state, requests)

    monkeypatch.setattr(ResidentState, "needed_by", needs_nothing_once)

    async with Appender(database) as appender:
        (receipt,) = receipts(await appender.append(request(event)))

    assert (receipt.position, receipt.duplicate, nothing) == (1, True, [])


async def test_an_append_terminated_three_times_is_answered_with_database_unavailable(
    appender: Appender, database_url: URL
) -> None:
    event = cost()
    async with connected(database_url) as other, head_locked(database_url):
        task = asyncio.create_task(appender.append(request(event)))
        await terminate_waiting_appends(other, 3)
        (answer,) = await gathered([task])

    assert isinstance(answer, DatabaseUnavailable)
    (receipt,) = receipts(await appender.append(request(event)))
    assert (receipt.position, receipt.duplicate) == (1, False)


async def test_a_request_that_the_database_rejects_fails_alone(database: Database, database_url: URL) -> None:
    await query(database, "ALTER TABLE ledger.events ADD CONSTRAINT no_poison CHECK (actor <> 'poison')")
    poison = Request([candidate(cost(), actor="poison")])
    async with Appender(database) as appender:
        async with head_locked(database_url) as appends_wait:
            tasks = [asyncio.create_task(appender.append(request(cost())))]
            await appends_wait()
            requests = [request(cost()), request(cost()), poison, request(cost())]
            tasks += [asyncio.create_task(appender.append(one)) for one in requests]
            await turns()
        answers = await gathered(tasks)
        after = receipts(await appender.append(request(cost())))

    assert isinstance(answers[3], asyncpg.CheckViolationError)
    assert [receipts(answers[index])[0].position for index in (0, 1, 2, 4)] == [1, 2, 3, 4]
    assert after[0].position == 5


async def test_a_request_that_raises_an_error_in_the_judge_fails_alone_and_at_once(appender: Appender) -> None:
    """The failed transaction must release the head lock before the other requests of the group are retried."""
    valid = candidate(cost())
    invalid = Request([msgspec.structs.replace(valid, event_type=replace(valid.event_type, name="nonsense.recorded"))])

    async with asyncio.timeout(5):
        answers = await asyncio.gather(
            *(appender.append(one) for one in (request(cost()), invalid, request(cost()))), return_exceptions=True
        )

    assert isinstance(answers[1], KeyError)
    assert [receipts(answers[index])[0].position for index in (0, 2)] == [1, 2]


async def test_a_job_that_ends_releases_its_hold_on_a_campaign_other_than_its_campaign(database: Database) -> None:
    opened, queued = campaign(), job()
    held = reserve("5", campaign_id=opened["id"], agent_job_id=queued["id"])
    await record(database, opened, queued, held)

    await record(database, follow(queued, "job.cancelled"))

    assert await query(database, "SELECT scope, held FROM ledger.accounts ORDER BY scope") == [
        ("campaign", 0),
        ("job", 0),
    ]


async def test_an_unreachable_database_is_reported_as_unavailable(database: Database, database_url: URL) -> None:
    unreachable = Database(database_url.set(port=1))
    async with Appender(unreachable) as appender:
        answers = await gathered(appender.append(request(cost())) for _ in range(3))
        later = await gathered([appender.append(request(cost()))])

    assert [type(answer) for answer in [*answers, *later]] == [DatabaseUnavailable] * 4


async def test_a_database_that_accepts_no_more_connections_is_unavailable_until_it_does(
    database: Database, database_url: URL
) -> None:
    role = f"limited_{database_url.database}"
    await query(database, f"CREATE ROLE {role} LOGIN PASSWORD 'limited' SUPERUSER CONNECTION LIMIT 0")
    await query(database, f"ALTER ROLE {role} NOSUPERUSER")
    await query(database, f"GRANT ledger_service TO {role}")
    limited = Database(database_url.set(username=role, password="limited"))
    appender = await Appender(limited).__aenter__()

    refused = await gathered([appender.append(request(cost()))])
    await query(database, f"ALTER ROLE {role} CONNECTION LIMIT -1")
    accepted = await gathered([asyncio.wait_for(appender.append(request(cost())), 5)])

    await limited.close()
    await query(database, f"DROP OWNED BY {role}")
    await query(database, f"DROP ROLE {role}")
    assert [type(answer) for answer in refused] == [DatabaseUnavailable]
    assert isinstance(accepted[0], list)
    assert isinstance(accepted[0][0], Receipt)
    await appender.__aexit__(None, None, None)


@pytest.mark.parametrize("code", ["53100", "53200", "58030"])
async def test_a_database_with_a_full_or_failing_disk_is_unavailable_until_it_recovers(
    appender: Appender, database: Database, database_url: URL, code: str
) -> None:
    async with connected(database_url) as owner:
        await owner.execute(f"""
            CREATE FUNCTION pg_temp.refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'no space left on device' USING ERRCODE = '{code}'; END $$;
            CREATE TRIGGER refuse BEFORE INSERT ON ledger.cost_events FOR EACH ROW EXECUTE FUNCTION pg_temp.refuse()
        """)
        event = cost()
        with pytest.raises(DatabaseUnavailable):
            await appender.append(request(event))
        await owner.execute("DROP TRIGGER refuse ON ledger.cost_events")

        (receipt,) = receipts(await appender.append(request(event)))

    assert (receipt.position, receipt.duplicate) == (1, False)
