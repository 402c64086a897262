"""The appender: group commit, a bounded queue, draining on exit, and retries found in the database."""

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import URL

from ledger.database import Database
from ledger.domain.errors import EventIdConflict, Overloaded
from ledger.domain.event import Receipt
from ledger.log import append_queue, pipeline
from ledger.log.appender import Appender
from tests.events import campaign, content, cost, follow, job, reserve
from tests.log.helpers import gathered, head_locked, query, receipts, record, request, turns, value

pytestmark = pytest.mark.every_connection


def appends(appender: Appender, *events: dict[str, Any]) -> list["asyncio.Task[Any]"]:
    return [sent(appender, event) for event in events]


def sent(appender: Appender, *events: dict[str, Any]) -> "asyncio.Task[Any]":
    return asyncio.create_task(appender.append(request(*events)))


async def test_requests_that_arrive_during_an_append_are_appended_together_by_the_next(
    database: Database, database_url: URL
) -> None:
    groups: list[int] = []
    async with Appender(database, on_append=groups.append) as appender:
        async with head_locked(database_url) as appends_wait:
            first = appends(appender, cost())
            await appends_wait()
            later = appends(appender, *(cost() for _ in range(49)))
            await turns()
        answers = await gathered([*first, *later])

    assert groups == [1, 50]
    assert [receipt.position for verdict in answers for receipt in receipts(verdict)] == list(range(1, 51))
    assert await value(database, "SELECT count(DISTINCT recorded_at) FROM ledger.events") == 2


async def test_requests_that_join_a_group_while_another_is_written_have_the_time_of_the_group(
    appender: Appender, database: Database, database_url: URL
) -> None:
    joined: list[asyncio.Task[Any]] = []
    async with head_locked(database_url) as appends_wait:
        first = appends(appender, cost())
        await appends_wait()
        for _ in range(3):
            joined += appends(appender, reserve("1"))
            # Long enough for each of them to be loaded and judged apart from the others.
            await asyncio.sleep(0.1)
    await gathered([*first, *joined])

    assert await value(database, "SELECT count(DISTINCT recorded_at) FROM ledger.events") == 2
    lives = await query(
        database,
        "SELECT DISTINCT holds.expires_at - recorded_at FROM ledger.holds JOIN ledger.cost_events USING (stream_id)",
    )
    assert lives == [(timedelta(seconds=900),)]


async def test_a_group_has_a_maximum_size_and_a_larger_request_is_a_group_alone(
    database: Database, database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "GROUP_EVENTS_MAX", 10)
    groups: list[int] = []
    async with Appender(database, on_append=groups.append) as appender:
        async with head_locked(database_url) as appends_wait:
            first = appends(appender, cost())
            await appends_wait()
            large = sent(appender, *(cost() for _ in range(15)))
            later = appends(appender, *(cost() for _ in range(12)))
            await turns()
        await gathered([*first, large, *later])

    assert groups == [1, 16, 26, 28]


async def test_every_request_of_a_group_gets_a_separate_verdict(appender: Appender, database: Database) -> None:
    opened, other = campaign(), campaign()

    answers = await gathered(
        [
            appender.append(request(opened, follow(opened, "campaign.activated"))),
            appender.append(request(cost("1", campaign_id=opened["id"]), follow(opened, "campaign.activated"))),
            appender.append(request(follow(other, "campaign.activated"), other, independent=True)),
            appender.append(request(cost("2", campaign_id=opened["id"]))),
        ]
    )

    accepted = [[isinstance(answer, Receipt) for answer in verdict] for verdict in answers]
    assert accepted == [[True, True], [False], [False, True], [True]]
    assert answers[1][0].index == 1
    types = await query(database, "SELECT type FROM ledger.events ORDER BY position")
    assert [name for (name,) in types] == [
        "campaign.created",
        "campaign.activated",
        "campaign.created",
        "cost.recorded",
    ]
    assert await query(database, "SELECT spent FROM ledger.accounts ORDER BY spent") == [(0,), (2,)]


@pytest.mark.parametrize(("bound", "size"), [("QUEUE_EVENTS_MAX", 3), ("QUEUE_CHARACTERS_MAX", 3 * 44)])
async def test_a_full_queue_refuses_at_once_and_accepts_again_when_there_is_room(
    appender: Appender, database: Database, database_url: URL, monkeypatch: pytest.MonkeyPatch, bound: str, size: int
) -> None:
    monkeypatch.setattr(append_queue, bound, size)
    monkeypatch.setattr(pipeline, "GROUP_EVENTS_MAX", 1)
    async with head_locked(database_url) as appends_wait:
        first = appends(appender, cost())
        await appends_wait()
        # The next group is judged already, and no longer in the queue.
        queued = appends(appender, cost())
        await turns()
        queued += appends(appender, cost(), cost(), cost())
        await turns()

        with pytest.raises(Overloaded):
            await appender.append(request(cost()))

    assert [len(receipts(verdict)) for verdict in await gathered([*first, *queued])] == [1, 1, 1, 1, 1]
    receipts(await appender.append(request(cost())))
    assert await value(database, "SELECT count(*) FROM ledger.events") == 6


async def test_an_empty_queue_accepts_a_request_that_exceeds_its_limit(
    appender: Appender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append_queue, "QUEUE_EVENTS_MAX", 1)

    verdict = await appender.append(request(cost(), cost(), cost()))

    assert len(receipts(verdict)) == 3


async def test_exit_drains_the_queue_and_refuses_further_requests(database: Database, database_url: URL) -> None:
    appender = await Appender(database).__aenter__()
    async with head_locked(database_url) as appends_wait:
        accepted = appends(appender, cost())
        await appends_wait()
        accepted += appends(appender, *(cost() for _ in range(20)))
        await turns()
        leaving = asyncio.create_task(appender.__aexit__(None, None, None))
        await turns()

        with pytest.raises(Overloaded):
            await appender.append(request(cost()))
        assert not leaving.done()

    await leaving
    assert all(task.done() for task in accepted)
    assert [len(receipts(task.result())) for task in accepted] == [1] * 21
    assert await value(database, "SELECT count(*) FROM ledger.events") == 21


async def test_a_request_cancelled_in_the_queue_is_not_recorded_and_does_not_affect_others(
    appender: Appender, database: Database, database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "GROUP_EVENTS_MAX", 1)
    recorded = [cost(), cost()]
    async with head_locked(database_url) as appends_wait:
        first = appends(appender, cost())
        await appends_wait()
        queued = appends(appender, recorded[0], cost(), recorded[1])
        await turns()
        queued[1].cancel()
        await turns()

    answers = await gathered([*first, *queued])

    assert isinstance(answers[2], asyncio.CancelledError)
    assert [receipts(answers[index])[0].position for index in (0, 1, 3)] == [1, 2, 3]
    assert await value(database, "SELECT count(*) FROM ledger.events") == 3


async def test_a_request_cancelled_during_its_append_does_not_affect_others(
    appender: Appender, database: Database, database_url: URL
) -> None:
    abandoned = cost()
    async with head_locked(database_url) as appends_wait:
        (task,) = appends(appender, abandoned)
        await appends_wait()
        task.cancel()
        await turns()

    (receipt,) = receipts(await appender.append(request(abandoned)))

    assert (receipt.position, receipt.duplicate) == (1, True)
    assert await value(database, "SELECT count(*) FROM ledger.events") == 1


async def test_a_new_appender_finds_retried_events_in_the_database(database: Database) -> None:
    opened, queued, drafted = campaign(budget="1"), job(), content()
    held = reserve("1", campaign_id=opened["id"], description="What it is for")
    events = [
        opened,
        queued,
        drafted,
        held,
        follow(opened, "campaign.activated", {"reason": "Because"}),
        follow(queued, "job.started", occurred_at="2025-01-01T00:00:00Z"),
        follow(drafted, "content.submitted"),
        follow(held, "cost.settled", {"cost": "2", "tokens_used": 7}),
        cost("1", agent_job_id=queued["id"], campaign_id=opened["id"]),
    ]
    async with Appender(database) as appender:
        first = receipts(await appender.append(request(*events)))

    async with Appender(database) as appender:
        retried = receipts(await appender.append(request(*events)))
        backwards = [receipts(await appender.append(request(event)))[0] for event in reversed(events)]

    duplicates = [
        Receipt(receipt.id, receipt.stream_id, receipt.version, receipt.position, True, receipt.over_budget)
        for receipt in first
    ]
    # The limits of a hold are those of now.
    repeated, alone = (
        [msgspec.structs.replace(receipt, limits=None) for receipt in answered] for answered in (retried, backwards)
    )
    assert [receipt.over_budget for receipt in first if receipt.over_budget] == [["campaign"], ["campaign"]]
    assert (repeated, alone[::-1]) == (duplicates, duplicates)
    assert await value(database, "SELECT count(*) FROM ledger.events") == len(events)


async def test_the_same_id_with_different_content_is_a_conflict_found_in_the_database(database: Database) -> None:
    event = cost(description="Text") | {"occurred_at": "2025-01-01T00:00:00Z"}
    await record(database, event)
    other_data = [
        {"resource_type": "llm_api", "cost": "2", "description": "Text"},
        {"resource_type": "llm_api", "cost": "1", "description": "Other text"},
        {"resource_type": "llm_api", "cost": "1"},
    ]
    changes: list[dict[str, Any]] = [
        *({"data": data} for data in other_data),
        {"type": "cost.reserved", "data": {"resource_type": "llm_api", "amount": "1", "description": "Text"}},
        {"occurred_at": "2025-01-01T00:00:00.000001Z"},
        {"correlation_id": "00000000-0000-4000-8000-000000000001"},
        {"causation_id": "00000000-0000-4000-8000-000000000001"},
    ]

    async with Appender(database) as appender:
        refusals = [(await appender.append(request(event | change)))[0] for change in changes]

    assert [type(refusal) for refusal in refusals] == [EventIdConflict] * len(changes)
    assert all("position 1" in str(refusal) for refusal in refusals)
    assert await value(database, "SELECT count(*) FROM ledger.events") == 1
