"""The append queue: bounds, shares, turns by used time, credit of idle keys, delay of heavy requests."""

import pytest

from ledger.domain.errors import Overloaded
from ledger.domain.event import Request
from ledger.log import append_queue
from ledger.log.append_queue import (
    ACTIVE_SECONDS,
    CREDIT_SECONDS,
    HEAVY_EVENTS_MIN,
    RECENT_SECONDS,
    AppendQueue,
    QueuedRequest,
)
from tests.events import cost
from tests.log.helpers import candidate

GROUP = 1_000


class Clock:
    """A monotonic clock that only tests move."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(append_queue, "time", clock)
    return clock


@pytest.fixture
async def queue() -> AppendQueue:
    return AppendQueue()


def sent(key: str, events: int = 1, characters: int = 0) -> Request:
    """A request of a key, of which each event has this much more text."""
    event = cost(description="x" * characters) if characters else cost()
    return Request([candidate(event, actor=key)] * events)


def put(queue: AppendQueue, key: str, requests: int, events: int = 1) -> None:
    for _ in range(requests):
        queue.put(sent(key, events))


def keys(group: list[QueuedRequest]) -> str:
    return "".join(waiting.key for waiting in group)


def serve(queue: AppendQueue, event_seconds: float, events_max: int = GROUP) -> list[QueuedRequest]:
    """Take a group and charge the time that its events took."""
    group = queue.take_group(events_max)
    queue.charge(group, event_seconds * sum(waiting.events for waiting in group))
    return group


@pytest.mark.parametrize("bound", ["QUEUE_EVENTS_MAX", "QUEUE_CHARACTERS_MAX"])
async def test_a_full_queue_still_has_room_for_the_share_of_another_key(
    queue: AppendQueue, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    size = len(sent("a").candidates[0].data) if bound == "QUEUE_CHARACTERS_MAX" else 1
    monkeypatch.setattr(append_queue, bound, 10 * size)
    put(queue, "a", 10)

    put(queue, "b", 5)

    for key in ("a", "b"):
        with pytest.raises(Overloaded):
            queue.put(sent(key))
    assert queue.events == 15
    assert sorted(keys(queue.take_group(GROUP))) == ["a"] * 10 + ["b"] * 5


async def test_a_key_that_has_nothing_queued_may_send_one_request_of_any_size(
    queue: AppendQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append_queue, "QUEUE_EVENTS_MAX", 10)
    monkeypatch.setattr(append_queue, "QUEUE_CHARACTERS_MAX", 10)

    queue.put(sent("a", 50, 500))
    queue.put(sent("b", 50, 500))

    for key in ("a", "b"):
        with pytest.raises(Overloaded):
            queue.put(sent(key))
    assert queue.events == 100


async def test_room_is_required_as_put_does(queue: AppendQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(append_queue, "QUEUE_EVENTS_MAX", 10)
    queue.require_room("a", 50)
    put(queue, "a", 8)

    queue.require_room("a", 2)
    queue.require_room("b", 50)
    with pytest.raises(Overloaded):
        queue.require_room("a", 3)


async def test_a_new_key_does_not_begin_with_much_unused_time(queue: AppendQueue) -> None:
    put(queue, "old", 1)
    serve(queue, 5.0)
    put(queue, "old", 1)
    put(queue, "new", 1)

    assert keys(serve(queue, 1.0, 1)) == "new"
    put(queue, "new", 1)
    assert keys(serve(queue, 1.0, 1)) == "old"


async def test_the_room_of_taken_requests_is_free_again(queue: AppendQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(append_queue, "QUEUE_EVENTS_MAX", 4)
    put(queue, "a", 4)

    taken = queue.take_group(3)
    put(queue, "a", 3)

    assert (len(taken), queue.events, bool(queue)) == (3, 4, True)
    assert len(queue.take_all()) == 4
    assert (queue.events, bool(queue), queue.take_group(GROUP)) == (0, False, [])


async def test_keys_take_turns_whatever_they_have_queued(queue: AppendQueue) -> None:
    put(queue, "a", 50)
    put(queue, "b", 3)
    put(queue, "c", 3)

    group = queue.take_group(9)

    assert sorted(keys(group)) == list("aaabbbccc")


async def test_turns_count_time_and_not_requests(queue: AppendQueue) -> None:
    put(queue, "a", 10, events=100)
    put(queue, "b", 2_000)

    group = [waiting for _ in range(10) for waiting in serve(queue, 0.0001, events_max=200)]

    events = {key: sum(waiting.events for waiting in group if waiting.key == key) for key in "ab"}
    assert 2_000 - 200 <= sum(events.values()) <= 2_000
    assert abs(events["a"] - events["b"]) <= 200


async def test_the_time_that_a_group_took_counts_instead_of_the_estimate(queue: AppendQueue) -> None:
    put(queue, "a", 1, events=10)
    serve(queue, event_seconds=0.01)
    put(queue, "b", 1, events=10)
    serve(queue, event_seconds=0.001)
    put(queue, "a", 5)
    put(queue, "b", 5)

    assert keys(queue.take_group(GROUP)) == "bbbbbaaaaa"


@pytest.mark.parametrize("is_waiting", [True, False])
async def test_a_new_key_is_ahead_by_at_most_its_credit(queue: AppendQueue, is_waiting: bool) -> None:
    put(queue, "a", 100)
    serve(queue, event_seconds=1.0)
    if is_waiting:
        put(queue, "a", 1)
    put(queue, "b", 100)
    put(queue, "a", 1)

    served_first = ""
    while "a" not in served_first:
        served_first += keys(serve(queue, event_seconds=0.1, events_max=1))

    assert served_first.count("b") <= CREDIT_SECONDS / 0.1 + 1


async def test_many_new_keys_together_are_ahead_by_no_more_than_one(queue: AppendQueue) -> None:
    put(queue, "a", 1)
    serve(queue, event_seconds=100.0)
    for key in "bcdefghi":
        put(queue, key, 100)
    put(queue, "a", 1)

    served_first = ""
    while "a" not in served_first:
        served_first += keys(serve(queue, event_seconds=0.1, events_max=1))

    assert max(served_first.count(key) for key in "bcdefghi") <= CREDIT_SECONDS / 0.1 + 1


async def test_a_key_that_was_idle_keeps_no_more_than_its_credit(queue: AppendQueue, clock: Clock) -> None:
    put(queue, "b", 1)
    serve(queue, event_seconds=0.1)
    for _ in range(50):
        put(queue, "a", 1)
        serve(queue, event_seconds=1.0)
        clock.now += 0.1
    put(queue, "b", 100)
    put(queue, "a", 1)

    served_first = ""
    while "a" not in served_first:
        served_first += keys(serve(queue, event_seconds=0.1, events_max=1))

    assert served_first.count("b") <= CREDIT_SECONDS / 0.1 + 1


async def test_a_group_has_at_most_this_many_events_but_a_larger_request_is_taken_alone(queue: AppendQueue) -> None:
    put(queue, "a", 3, events=6)

    groups = [queue.take_group(13), queue.take_group(5, at_least_one=False), queue.take_group(5)]

    assert [len(group) for group in groups] == [2, 0, 1]


async def test_a_cancelled_request_is_dropped(queue: AppendQueue) -> None:
    answers = [queue.put(sent("a")) for _ in range(3)]
    answers[1].cancel()

    group = queue.take_group(GROUP)

    assert [waiting.answer for waiting in group] == [answers[0], answers[2]]
    assert not queue


def heavy_and_light(queue: AppendQueue) -> None:
    """Let one key use much time and another one a little."""
    put(queue, "heavy", 1, events=5_000)
    serve(queue, event_seconds=0.0001)
    put(queue, "light", 1)
    serve(queue, event_seconds=0.0001)


def delay_seconds(queue: AppendQueue) -> float:
    delay = queue.delay()
    return delay.seconds if delay is not None else 0


async def test_a_heavy_request_waits_for_a_moment_if_a_lighter_key_was_active(queue: AppendQueue, clock: Clock) -> None:
    heavy_and_light(queue)
    queue.put(sent("heavy", HEAVY_EVENTS_MIN))

    at_once = delay_seconds(queue)
    clock.now += ACTIVE_SECONDS / 4
    later = delay_seconds(queue)
    queue.put(sent("light"))
    is_next = delay_seconds(queue)
    group = queue.take_group(1)
    clock.now += ACTIVE_SECONDS
    is_being_recorded = delay_seconds(queue)
    queue.charge(group, 0.001)
    answered = delay_seconds(queue)
    clock.now += ACTIVE_SECONDS
    idle = delay_seconds(queue)

    assert [at_once, later] == pytest.approx([ACTIVE_SECONDS, ACTIVE_SECONDS * 3 / 4])
    assert [is_being_recorded, answered] == pytest.approx([ACTIVE_SECONDS, ACTIVE_SECONDS])
    assert (is_next, idle) == (0, 0)


@pytest.mark.parametrize(
    ("key", "events"), [("heavy", HEAVY_EVENTS_MIN - 1), ("light", 5_000)], ids=["a small request", "a lighter key"]
)
async def test_other_requests_do_not_wait(queue: AppendQueue, key: str, events: int) -> None:
    heavy_and_light(queue)

    queue.put(sent(key, events))

    assert queue.delay() is None


async def test_a_heavy_request_waits_no_longer_than_until_the_other_key_has_used_as_much(
    queue: AppendQueue, clock: Clock
) -> None:
    heavy_and_light(queue)
    queue.put(sent("heavy", HEAVY_EVENTS_MIN))
    waited = 0.0

    # The light key sends one event after the other, and is served at once.
    while (delay := queue.delay()) is not None:
        clock.now += delay.seconds / 2
        waited += delay.seconds / 2
        queue.charge_delay(delay, delay.seconds / 2)
        put(queue, "light", 1)
        serve(queue, event_seconds=0.0001, events_max=1)

    assert waited <= 5_000 * 0.0001 + ACTIVE_SECONDS


async def test_a_request_that_failed_does_not_keep_its_key_active(queue: AppendQueue, clock: Clock) -> None:
    heavy_and_light(queue)
    put(queue, "light", 1)
    failed = queue.take_group(1)
    queue.put(sent("heavy", HEAVY_EVENTS_MIN))

    queue.charge(failed, 0.0)
    clock.now += ACTIVE_SECONDS

    assert queue.delay() is None


async def test_heavy_requests_are_not_judged_ahead_while_others_send(queue: AppendQueue, clock: Clock) -> None:
    heavy_and_light(queue)
    queue.put(sent("heavy", HEAVY_EVENTS_MIN))

    recently = queue.should_yield()
    clock.now += RECENT_SECONDS + ACTIVE_SECONDS
    later = queue.should_yield()

    assert (recently, later) == (True, False)


async def test_a_group_has_a_maximum_of_characters_but_takes_a_larger_request_alone(queue: AppendQueue) -> None:
    for _ in range(3):
        queue.put(sent("one", characters=400))

    sizes = [len(queue.take_group(GROUP, characters_max=1_000)) for _ in range(2)]
    queue.put(sent("one", characters=400))
    refused, alone = queue.take_group(GROUP, 100, at_least_one=False), queue.take_group(GROUP, 100)

    assert (sizes, len(refused), len(alone)) == ([2, 1], 0, 1)
