"""Notifying thousands of waiting tasks: all wake, and other tasks run between the batches."""

import asyncio
from itertools import groupby

from ledger.log.notifications import LogSignal


async def test_a_notification_in_batches_wakes_all_tasks_and_lets_others_run_in_between() -> None:
    signal = LogSignal()
    woken: list[str] = []

    async def wait(name: str) -> None:
        await signal.wait(0, 20)
        woken.append(name)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(25):
            tasks.create_task(wait("waiting"))
        await asyncio.sleep(0)
        notifying = tasks.create_task(signal.notify_in_batches(10))
        while not notifying.done():
            await asyncio.sleep(0)
            woken.append("another")

    assert woken.count("waiting") == 25
    assert max(len(list(run)) for name, run in groupby(woken) if name == "waiting") <= 10


async def test_a_task_that_begins_to_wait_between_batches_does_not_miss_the_notification() -> None:
    signal = LogSignal()
    waiting = [asyncio.create_task(signal.wait(0, 20)) for _ in range(3)]
    await asyncio.sleep(0)
    notifying = asyncio.create_task(signal.notify_in_batches(1))
    await asyncio.sleep(0)

    async with asyncio.timeout(10):
        await signal.wait(0, 600)
        await asyncio.gather(notifying, *waiting)

    assert signal.generation == 1
