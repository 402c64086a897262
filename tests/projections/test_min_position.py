"""The consistency token: an append returns its position, and a read may require that position."""

import asyncio
from decimal import Decimal

import pytest

from ledger.database import Connection, Database
from ledger.domain.errors import Malformed, Overloaded, ProjectionBehind
from ledger.log.read import read_head
from projections import positions
from projections.checkpoint import read_position
from projections.positions import PositionWaiters, read_model_waiters, replica_log_waiters, wait_for_read_models
from projections.worker import fold_page
from tests.api.helpers import worker_stopped
from tests.conftest import Service
from tests.events import campaign, cost
from tests.log.helpers import record, turns, until


async def test_a_position_that_is_already_reflected_returns_at_once(database: Database) -> None:
    await record(database, cost())
    await fold_page(database)

    await asyncio.wait_for(wait_for_read_models(database, 1), 1)


async def test_a_read_waits_until_its_position_is_reflected(database: Database) -> None:
    await record(database, cost())
    waiting = asyncio.create_task(wait_for_read_models(database, 1))
    done, _ = await asyncio.wait({waiting}, timeout=0.1)

    await fold_page(database)

    assert done == set()
    await asyncio.wait_for(waiting, 5)


async def test_a_position_that_is_not_reached_in_time_raises_and_names_the_position_reached(
    database: Database,
) -> None:
    await record(database, cost(), cost())
    await fold_page(database)
    await record(database, cost())

    with pytest.raises(ProjectionBehind, match="position 2, not yet at 3"):
        await wait_for_read_models(database, 3, seconds_max=1)


async def test_a_position_beyond_the_end_of_the_log_is_refused_at_once(database: Database) -> None:
    await record(database, cost(), cost())

    with pytest.raises(Malformed, match="the log ends at position 2; position 3 does not exist yet"):
        await wait_for_read_models(database, 3, seconds_max=60)


async def test_a_read_is_judged_by_an_end_of_the_log_that_was_read_after_it_arrived(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    head_was_read, go_on = asyncio.Event(), asyncio.Event()

    async def read_slowly(connection: Connection) -> int:
        head = await read_head(connection)
        head_was_read.set()
        await go_on.wait()
        return head

    monkeypatch.setattr(positions, "read_head", read_slowly)
    waiters = read_model_waiters(database)
    of_another_log = asyncio.create_task(waiters.wait(5, 60))
    await head_was_read.wait()
    await record(database, cost())
    of_the_receipt = asyncio.create_task(waiters.wait(1, 60))
    await turns()
    go_on.set()

    with pytest.raises(Malformed, match="the log ends at position 0"):
        await of_another_log
    await fold_page(database)
    await asyncio.wait_for(of_the_receipt, 10)


async def test_the_log_is_waited_for_in_the_same_way(database: Database) -> None:
    await record(database, cost(), cost())
    waiters = replica_log_waiters(database)
    waiting = asyncio.create_task(waiters.wait(3, seconds_max=5))
    done, _ = await asyncio.wait({waiting}, timeout=0.1)

    await record(database, cost())

    assert done == set()
    await asyncio.wait_for(waiting, 5)
    with pytest.raises(ProjectionBehind, match="the replica's log is at position 3, not yet at 4"):
        await waiters.wait(4, seconds_max=1)


async def test_reads_that_wait_share_one_poll_and_each_wakes_at_its_own_position(database: Database) -> None:
    polls = 0

    async def counted(connection: Connection) -> int:
        nonlocal polls
        polls += 1
        return await read_position(connection)

    async def polled(number: int) -> None:
        async def reached() -> bool:
            return polls >= number

        await until(reached)

    waiters = PositionWaiters(database, counted, "the read models are")
    for_one, for_two = ([asyncio.create_task(waiters.wait(position, 60)) for _ in range(200)] for position in (1, 2))
    await polled(5)
    # Each read polling for itself would have polled 400 times by now.
    assert polls < 10

    await record(database, cost())
    await fold_page(database)
    async with asyncio.timeout(5):
        await asyncio.gather(*for_one)
    assert not any(task.done() for task in for_two)

    await record(database, cost())
    await fold_page(database)
    async with asyncio.timeout(5):
        await asyncio.gather(*for_two)
    ended = polls
    await asyncio.sleep(0.2)
    assert polls == ended


async def test_a_failed_poll_fails_every_read_that_waits(database: Database) -> None:
    async def fails(_: Connection) -> int:
        raise OSError("the database went away")

    waiters = PositionWaiters(database, fails, "the read models are")

    outcomes = await asyncio.gather(*(waiters.wait(1) for _ in range(3)), return_exceptions=True)

    assert [str(outcome) for outcome in outcomes] == ["the database went away"] * 3


async def test_a_key_may_have_half_of_the_waiting_reads(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(positions, "WAITING_MAX", 4)
    waiters = replica_log_waiters(database)
    waiting = [asyncio.create_task(waiters.wait(1, 60, "busy")) for _ in range(2)]
    await turns()

    with pytest.raises(Overloaded, match="2 reads of this key wait for a position already"):
        await waiters.wait(1, 60, "busy")
    waiting.append(asyncio.create_task(waiters.wait(1, 60, "other")))
    await record(database, cost())
    async with asyncio.timeout(5):
        await asyncio.gather(*waiting)

    await waiters.wait(1, 60, "busy")


async def test_a_cancelled_read_gives_its_place_back(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(positions, "WAITING_MAX", 2)
    waiters = replica_log_waiters(database)
    waiting = asyncio.create_task(waiters.wait(1, 60, "key"))
    await turns()

    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    with pytest.raises(ProjectionBehind):
        await waiters.wait(1, 0.05, "key")


@pytest.mark.parametrize("by_header", [True, False])
async def test_every_read_after_an_append_reflects_it(service: Service, by_header: bool) -> None:
    opened = campaign("100")
    await service.append(opened)
    for number in range(1, 11):
        (receipt,) = await service.append(cost("1", campaign_id=opened["id"]))
        token = str(receipt["position"])
        headers, parameters = ({"Ledger-Min-Position": token}, {}) if by_header else ({}, {"min_position": token})

        async with service.client.get(f"/v1/campaigns/{opened['id']}", headers=headers, params=parameters) as answer:
            row = await answer.json()

        assert (answer.status, Decimal(row["spend"])) == (200, number)
        assert int(answer.headers["Ledger-Position"]) >= receipt["position"]


async def test_a_read_that_times_out_gets_503_with_retry_after(service: Service) -> None:
    async with worker_stopped(service):
        (receipt,) = await service.append(cost())
        answer = await service.client.get("/v1/campaigns", params={"min_position": str(receipt["position"])})
        problem = await answer.json(content_type=None)

    assert (answer.status, problem["type"]) == (503, "/problems/projection-behind")
    assert int(answer.headers["Retry-After"]) >= 1
