"""The database fails under the appender: every request is answered, every event is in the log once or not at all."""

import asyncio
from typing import Any

import asyncpg
import msgspec
import pytest
from sqlalchemy import URL

from ledger.database import Database
from ledger.domain.errors import DatabaseUnavailable
from ledger.domain.event import Receipt, Request
from ledger.log import append as append_module
from ledger.log import appender as appender_module
from ledger.log.append import append
from ledger.log.appender import Appender
from ledger.log.load import Touched, touched_by
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
CUT_ALL = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


async def cut_the_waiting(connection: Any, times: int) -> None:
    """Cut the append that waits for the lock, then the one that is tried in its place, and so on."""
    cut: list[int] = []
    while len(cut) < times:
        cut.append(await until(lambda: connection.fetchval(WAITING_PID, cut)))
        await connection.execute(f"SELECT pg_terminate_backend({cut[-1]})")


async def test_a_connection_that_is_cut_in_the_middle_of_an_append_costs_nobody_anything(
    appender: Appender, database: Database, database_url: URL
) -> None:
    async with connected(database_url) as other:
        async with head_locked(database_url) as appends_wait:
            tasks = [asyncio.create_task(appender.append(request(cost())))]
            await appends_wait()
            tasks += [asyncio.create_task(appender.append(request(cost()))) for _ in range(10)]
            await turns()
            await cut_the_waiting(other, 1)
        answers = await gathered(tasks)

    assert sorted(receipts(answer)[0].position for answer in answers) == list(range(1, 12))
    assert await value(database, "SELECT count(*) FROM ledger.events") == 11


async def test_in_a_burst_with_every_connection_cut_again_and_again_each_event_is_recorded_once(
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

            async def under_way(reached: int = reached) -> bool:
                return len(answered) >= reached

            await until(under_way)
            await other.fetch(CUT_ALL)

    assert sorted(receipt.position for receipt in answered) == list(range(2, 302))
    assert await value(database, "SELECT count(*) FROM ledger.events") == 301
    assert await query(database, "SELECT spent FROM ledger.accounts") == [(300,)]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_append_that_failed_is_sent_once_more_whether_it_had_been_written_or_not(
    database: Database, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    failures = [asyncpg.ConnectionDoesNotExistError("cut")]

    async def failing_once(*arguments: Any) -> Any:
        if failures and when == "before":
            raise failures.pop()
        answer = await append(*arguments)
        if failures:
            raise failures.pop()
        return answer

    monkeypatch.setattr(appender_module, "append", failing_once)
    opened = campaign()
    async with Appender(database) as appender:
        created, spent = receipts(await appender.append(request(opened, cost("3", campaign_id=opened["id"]))))

    written = when == "after"
    assert (created.position, created.duplicate, spent.position, spent.duplicate) == (1, written, 2, written)
    assert await query(database, "SELECT spent FROM ledger.accounts") == [(3,)]
    assert await value(database, "SELECT count(*) FROM ledger.events") == 2


@pytest.mark.parametrize("make", [campaign, cost])
async def test_an_identity_that_the_load_did_not_see_is_found_by_the_index_and_judged_anew(
    database: Database, monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    event = make()
    await record(database, event)
    nothing = [Touched([], [], [], [])]
    monkeypatch.setattr(append_module, "touched_by", lambda asked: nothing.pop() if nothing else touched_by(asked))

    async with Appender(database) as appender:
        (receipt,) = receipts(await appender.append(request(event)))

    assert (receipt.position, receipt.duplicate, nothing) == (1, True, [])


async def test_an_append_that_is_cut_twice_is_answered_so_that_the_sender_tries_again(
    appender: Appender, database_url: URL
) -> None:
    event = cost()
    async with connected(database_url) as other, head_locked(database_url):
        task = asyncio.create_task(appender.append(request(event)))
        await cut_the_waiting(other, 2)
        (answer,) = await gathered([task])

    assert isinstance(answer, DatabaseUnavailable)
    (receipt,) = receipts(await appender.append(request(event)))
    assert (receipt.position, receipt.duplicate) == (1, False)


async def test_a_request_that_the_database_cannot_take_fails_alone(database: Database, database_url: URL) -> None:
    await query(database, "ALTER TABLE ledger.events ADD CONSTRAINT no_poison CHECK (actor <> 'poison')")
    poison = Request([candidate(cost(), actor="poison")])
    async with Appender(database) as appender:
        async with head_locked(database_url) as appends_wait:
            tasks = [asyncio.create_task(appender.append(request(cost())))]
            await appends_wait()
            requests = [request(cost()), request(cost()), poison, request(cost())]
            tasks += [asyncio.create_task(appender.append(asked)) for asked in requests]
            await turns()
        answers = await gathered(tasks)
        after = receipts(await appender.append(request(cost())))

    assert isinstance(answers[3], asyncpg.CheckViolationError)
    assert [receipts(answers[index])[0].position for index in (0, 1, 2, 4)] == [1, 2, 3, 4]
    assert after[0].position == 5


async def test_a_request_that_this_program_cannot_judge_fails_alone_and_at_once(appender: Appender) -> None:
    """The failed transaction must not keep the head of the log while its neighbours are recorded."""
    asked = candidate(cost())
    nonsense = Request([msgspec.structs.replace(asked, event_type=asked.event_type._replace(category="nonsense"))])

    async with asyncio.timeout(5):
        answers = await asyncio.gather(
            *(appender.append(asked) for asked in (request(cost()), nonsense, request(cost()))), return_exceptions=True
        )

    assert isinstance(answers[1], KeyError)
    assert [receipts(answers[index])[0].position for index in (0, 2)] == [1, 2]


async def test_a_job_that_ends_releases_a_hold_on_a_campaign_that_is_not_its_own(database: Database) -> None:
    opened, queued = campaign(), job()
    held = reserve("5", campaign_id=opened["id"], agent_job_id=queued["id"])
    await record(database, opened, queued, held)

    await record(database, follow(queued, "job.cancelled"))

    assert await query(database, "SELECT scope, held FROM ledger.accounts ORDER BY scope") == [
        ("campaign", 0),
        ("job", 0),
    ]


async def test_a_database_that_cannot_be_reached_is_said_to_be_and_found_again(
    database: Database, database_url: URL
) -> None:
    nowhere = Database(database_url.set(port=1))
    async with Appender(nowhere) as appender:
        answers = await gathered(appender.append(request(cost())) for _ in range(3))
        again = await gathered([appender.append(request(cost()))])

    assert [type(answer) for answer in [*answers, *again]] == [DatabaseUnavailable] * 4


async def test_a_database_that_takes_no_more_connections_is_said_to_be_unavailable_and_tried_again(
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
    taken = await gathered([asyncio.wait_for(appender.append(request(cost())), 5)])

    await limited.close()
    await query(database, f"DROP OWNED BY {role}")
    await query(database, f"DROP ROLE {role}")
    assert [type(answer) for answer in refused] == [DatabaseUnavailable]
    assert isinstance(taken[0], list)
    assert isinstance(taken[0][0], Receipt)
    await appender.__aexit__(None, None, None)


@pytest.mark.parametrize("code", ["53100", "53200", "58030"])
async def test_a_database_whose_disk_is_full_or_broken_is_unavailable_until_it_is_mended(
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
