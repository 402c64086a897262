"""The fair share: how much each key gets, who waits, and that nothing is lost by a cancelled task."""

import asyncio

import pytest

from ledger.fair_share import FairShare


def take_all(share: FairShare, *keys: str) -> None:
    """Let the keys take one unit each in turn, until all are refused."""
    while sum(share.try_take(key) for key in keys):
        pass


@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_busy_keys_get_equal_shares_and_leave_one_for_another(number: int) -> None:
    share = FairShare(120)
    keys = [f"key {index}" for index in range(number)]

    take_all(share, *keys)

    assert [share.held(key) for key in keys] == [120 // (number + 1)] * number
    assert share.try_take("another")


def test_a_key_that_came_first_gives_up_what_exceeds_its_share() -> None:
    share = FairShare(120)
    take_all(share, "first")
    take_all(share, "second")
    assert (share.held("first"), share.held("second")) == (60, 30)

    for _ in range(20):
        share.give_back("first")
        take_all(share, "second", "first")

    assert (share.held("first"), share.held("second")) == (40, 40)


def test_the_total_is_never_exceeded() -> None:
    share = FairShare(10)

    for index in range(100):
        take_all(share, f"key {index}")

    assert sum(share.held(f"key {index}") for index in range(100)) == 10


async def test_a_waiting_key_does_not_hold_up_another() -> None:
    share = FairShare(4)
    take_all(share, "busy")
    waiting = [asyncio.create_task(share.take("busy")) for _ in range(5)]
    await asyncio.sleep(0)

    await share.take("another")

    assert not any(task.done() for task in waiting)
    for task in waiting:
        task.cancel()


async def test_a_key_is_served_in_order_even_if_a_later_amount_would_fit() -> None:
    share = FairShare(12)
    await share.take("key", 5)
    served: list[int] = []

    async def take(amount: int) -> None:
        await share.take("key", amount)
        served.append(amount)

    tasks = [asyncio.create_task(take(amount)) for amount in (4, 1)]
    await asyncio.sleep(0)
    assert not share.try_take("key", 1)

    share.give_back("key", 5)
    await asyncio.gather(*tasks)

    assert served == [4, 1]


async def test_keys_take_turns_if_there_are_more_of_them_than_units() -> None:
    share = FairShare(1)
    served: list[str] = []

    async def use(key: str) -> None:
        async with share.hold(key):
            served.append(key)

    async with share.hold("first"):
        tasks = [asyncio.create_task(use(key)) for key in ("busy", "busy", "busy", "another", "third")]
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)

    assert served == ["busy", "another", "third", "busy", "busy"]


async def test_a_cancelled_task_keeps_nothing_and_lets_the_next_one_in() -> None:
    share = FairShare(10)
    await share.take("key", 5)
    too_large, granted, next_one = (asyncio.create_task(share.take("key", amount)) for amount in (10, 4, 2))
    await asyncio.sleep(0)

    too_large.cancel()
    share.give_back("key", 5)
    assert share.held("key") == 6
    granted.cancel()
    await asyncio.gather(too_large, granted, next_one, return_exceptions=True)

    assert share.held("key") == 2
    share.give_back("key", 2)
    assert share.try_take("key", 10)


async def test_a_task_that_is_cancelled_while_it_waits_leaves_the_queue() -> None:
    share = FairShare(4)
    take_all(share, "key")
    first, cancelled = (asyncio.create_task(share.take("key", amount)) for amount in (2, 1))
    await asyncio.sleep(0)

    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    share.give_back("key", 2)
    await first

    assert share.held("key") == 2


async def test_a_hold_ends_with_its_context() -> None:
    share = FairShare(10)

    with pytest.raises(KeyError):
        async with share.hold("key", 5):
            assert share.held("key") == 5
            raise KeyError

    assert share.held("key") == 0
