"""GET /v1/events/stream: which events a subscriber gets, from which position, in which order."""

import asyncio
import random
from typing import Any

import pytest
from sqlalchemy import URL

from ledger.api import event_stream, live_feed, recent_events
from ledger.database import Database
from ledger.log import notifications as log_bell
from ledger.log.appender import Appender
from ledger.log.notifications import notify_other_processes
from tests.api.helpers import count_calls, request_for, slug
from tests.api.sse import PATH, open_stream
from tests.conftest import Service
from tests.events import campaign, content, cost, follow, job, reserve


async def test_events_arrive_as_they_are_appended_with_their_position_as_id(service: Service) -> None:
    async with open_stream(service.client) as stream:
        created = campaign(name='Say "hi"\n\r für \u2028 alle')
        receipts = await service.append(created, content(content="A\n\nB", campaign_id=created["id"]))
        receipts += await service.append(cost("0.5", campaign_id=created["id"]))

        events = await stream.take(3)

    assert events == [await service.get(f"/v1/events/{receipt['position']}") for receipt in receipts]
    assert stream.answer.content_type == "text/event-stream"
    assert stream.answer.headers["Cache-Control"] == "no-store"
    assert stream.answer.headers["X-Accel-Buffering"] == "no"


async def test_without_a_position_the_stream_begins_at_the_head(service: Service) -> None:
    await service.append(cost(), cost())

    async with open_stream(service.client) as stream:
        await service.append(cost())

        assert await stream.positions(1) == [3]


async def test_a_client_that_reconnects_before_the_first_event_misses_nothing(service: Service) -> None:
    await service.append(cost(), cost())
    async with open_stream(service.client) as stream:
        assert stream.last == 2
    await service.append(cost())

    async with open_stream(service.client, last=stream.last) as again:
        assert await again.positions(1) == [3]


async def test_a_stream_resumes_after_a_position_and_the_header_takes_precedence(service: Service) -> None:
    await service.append(*(cost() for _ in range(6)))

    async with (
        open_stream(service.client, after=0) as whole,
        open_stream(service.client, after=4) as after,
        open_stream(service.client, last=3) as last,
        open_stream(service.client, last=5, after=1) as both,
    ):
        assert await whole.positions(6) == [1, 2, 3, 4, 5, 6]
        assert await after.positions(2) == [5, 6]
        assert await last.positions(3) == [4, 5, 6]
        assert await both.positions(1) == [6]


async def test_a_reset_after_the_position_was_checked_ends_the_stream(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = live_feed.LiveFeed.require_position

    async def check_and_reset(feed: live_feed.LiveFeed, position: int, key: str) -> None:
        await check(feed, position, key)
        feed.resets += 1

    monkeypatch.setattr(live_feed.LiveFeed, "require_position", check_and_reset)

    async with open_stream(service.client, after=0) as stream:
        assert await stream.block() is None


@pytest.fixture
def small_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Subscribers fall behind soon: a window of few events, and small pages to catch up."""
    monkeypatch.setattr(recent_events, "RECENT_EVENTS_MAX", 20)
    monkeypatch.setattr(recent_events, "CHUNK_EVENTS_MAX", 3)
    monkeypatch.setattr(live_feed, "BATCH_EVENTS_MAX", 10)
    monkeypatch.setattr(live_feed, "CATCH_UP_EVENTS_MAX", 7)


async def append_many(service: Service, count: int) -> None:
    """Append `count` events in groups of various sizes, with various pauses."""
    while count:
        group = min(count, random.randint(1, 12))
        await service.append(*(cost() for _ in range(group)))
        await asyncio.sleep(random.choice([0, 0, 0.005, 0.03]))
        count -= group


@pytest.mark.parametrize("window", ["large", "small"])
async def test_reconnecting_anywhere_during_appends_leaves_no_gap_and_no_duplicate(
    service: Service, window: str, request: pytest.FixtureRequest
) -> None:
    if window == "small":
        request.getfixturevalue("small_window")
    found: list[int] = []

    async with asyncio.TaskGroup() as tasks, open_stream(service.client):
        tasks.create_task(append_many(service, 400))
        while len(found) < 400:
            at = found[-1] if found else 0
            start = {"last": at} if random.random() < 0.5 else {"after": at}
            async with open_stream(service.client, **start) as stream:
                found += await stream.positions(min(400 - len(found), random.choice([1, 2, 5, 40, 80])))

    assert found == list(range(1, 401))


async def test_a_client_far_behind_catches_up_during_appends(
    service: Service, small_window: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    caught_up = count_calls(monkeypatch, live_feed.LiveFeed, "catch_up")
    await service.append(*(cost() for _ in range(300)))

    async with (
        asyncio.TaskGroup() as tasks,
        open_stream(service.client) as live,
        open_stream(service.client, after=0) as behind,
        open_stream(service.client, after=0, category="job") as narrow,
    ):
        tasks.create_task(append_many(service, 300))
        assert await behind.positions(600) == list(range(1, 601))
        assert await live.positions(300) == list(range(301, 601))
        await service.append(job())
        assert await narrow.positions(1) == await live.positions(1) == await behind.positions(1) == [601]
        before = len(caught_up)
        await service.append(job())
        assert await narrow.positions(1) == await live.positions(1) == await behind.positions(1) == [602]

    assert before > 10, "it read the log itself"
    assert len(caught_up) == before, "until it was in the window"


async def test_filters_are_the_same_live_and_when_catching_up(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT_SECONDS", 0.2)
    first, second = campaign(), campaign()
    queued, asset = job(first["id"]), content(campaign_id=second["id"])
    held = reserve("1", campaign_id=second["id"])
    story = [first, second, queued, follow(queued, "job.started"), asset, follow(asset, "content.submitted")]
    story += [cost("1", agent_job_id=queued["id"]), held, cost("2"), follow(held, "cost.released")]
    filters: list[dict[str, str]] = [
        {},
        {"category": "job"},
        {"category": "campaign,content"},
        {"category": "ledger"},
        {"type": "cost.recorded,campaign.created"},
        {"type": "no.such.type"},
        {"category": "cost", "type": "cost.recorded,job.queued"},
        {"campaign_id": first["id"]},
        {"campaign_id": second["id"].upper()},
        {"agent_job_id": queued["id"]},
        {"stream_id": held["id"]},
        {"stream_id": asset["id"], "campaign_id": first["id"]},
    ]

    async def expect(narrowed: dict[str, str], started: asyncio.Event, **start: int) -> None:
        async with open_stream(service.client, **narrowed, **start) as stream:
            started.set()
            await appended.wait()
            expected = (await service.get("/v1/events", **narrowed))["events"]
            assert await stream.take(len(expected)) == expected
            await stream.heartbeat()

    appended = asyncio.Event()
    ready = [asyncio.Event() for _ in filters]
    async with asyncio.TaskGroup() as tasks:
        for narrowed, started in zip(filters, ready, strict=True):
            tasks.create_task(expect(narrowed, started))
        for started in ready:
            await started.wait()
        await service.append(*story)
        appended.set()
    for narrowed in filters:
        await expect(narrowed, asyncio.Event(), after=0)


async def test_a_large_event_arrives_whole(service: Service) -> None:
    async with open_stream(service.client) as stream:
        await service.append(content(content="é" * 1_000_000), cost())

        large, small = await stream.take(2)

    assert large == await service.get("/v1/events/1")
    assert small["position"] == 2


async def test_heartbeats_are_sent_while_no_event_matches(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT_SECONDS", 0.1)

    async with open_stream(service.client) as idle, open_stream(service.client, category="job") as narrow:
        await idle.heartbeat()
        await idle.heartbeat()
        writing = asyncio.create_task(append_many(service, 200))
        await narrow.heartbeat()
        await narrow.heartbeat()
        await writing
        assert await idle.positions(200) == list(range(1, 201))


@pytest.fixture
def never_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks that wait for a notification never poll."""
    monkeypatch.setattr(log_bell, "IDLE_SECONDS_MAX", 600.0)


@pytest.fixture
def polls_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks that wait for a notification poll often."""
    monkeypatch.setattr(log_bell, "IDLE_SECONDS_MAX", 0.1)
    monkeypatch.setattr(log_bell, "QUIET_SECONDS_MAX", 0.1)


async def append_in_another_process(database_url: URL, *, notifies: bool) -> None:
    """Append like another process, with a notification or without."""
    other = Database(database_url)
    async with Appender(other) as appender:
        await appender.append(request_for(cost()))
    if notifies:
        await notify_other_processes(other)
    await other.close()


async def test_events_of_another_process_arrive_by_notification(never_polls: None, service: Service) -> None:
    async with open_stream(service.client) as stream:
        await append_in_another_process(service.database_url, notifies=True)

        assert await stream.positions(1) == [1]


async def test_events_of_another_process_are_found_by_polling(polls_often: None, service: Service) -> None:
    async with open_stream(service.client) as stream:
        await append_in_another_process(service.database_url, notifies=False)

        assert await stream.positions(1) == [1]


@pytest.mark.parametrize("last", ["", "x", "-1", "+1", "1.0", "1e3", "0x1", "9223372036854775808", "1,2", "١"])
async def test_an_invalid_last_event_id_is_malformed(shared: Service, last: str) -> None:
    async with shared.client.get(PATH, headers={"Last-Event-ID": last}) as answer:
        problem = await answer.json(content_type=None)

    assert (answer.status, slug(problem)) == (400, "malformed")
    assert "Last-Event-ID" in problem["detail"]


@pytest.mark.parametrize(
    "parameters",
    [
        {"after": "x"},
        {"after": "-1"},
        {"after": "null"},
        {"until": "5"},
        {"limit": "5"},
        {"category": "costs"},
        {"campaign_id": "5"},
        {"colour": "red"},
    ],
)
async def test_invalid_parameters_are_malformed_whatever_the_header(
    shared: Service, parameters: dict[str, str]
) -> None:
    async with shared.client.get(PATH, params=parameters, headers={"Last-Event-ID": "0"}) as answer:
        problem = await answer.json(content_type=None)

    assert (answer.status, slug(problem)) == (400, "malformed")
    assert next(iter(parameters)) in problem["detail"]


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_other_methods_are_not_allowed(shared: Service, method: str) -> None:
    async with shared.client.request(method, PATH) as answer:
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET,HEAD"


async def test_the_database_is_not_read_without_subscribers(
    service: Service, monkeypatch: pytest.MonkeyPatch, polls_often: None
) -> None:
    reads = count_calls(monkeypatch, live_feed, "read_head")
    beginnings = count_calls(monkeypatch, live_feed, "RecentEvents")
    await service.append(cost())
    await asyncio.sleep(0.3)
    assert reads == []

    async with open_stream(service.client) as stream:
        await service.append(cost())
        assert await stream.positions(1) == [2]
    await wait_until_idle(service, reads)

    await service.append(cost())
    head = await service.head()
    async with open_stream(service.client, after=1) as stream:
        assert await stream.positions(2) == [2, 3]
    assert beginnings == [(1,), (head,)], "events appended meanwhile were read"


async def wait_until_idle(service: Service, reads: list[Any]) -> None:
    """Wait until the feed no longer reads the log although events are appended: it has no subscribers."""
    async with asyncio.timeout(20):
        seen = -1
        while seen != len(reads):
            seen = len(reads)
            await service.append(cost())
            await asyncio.sleep(0.3)
