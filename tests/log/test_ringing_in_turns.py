"""The signal where thousands wait: everybody is woken, and nobody else has to wait for that."""

import asyncio
from itertools import groupby

from ledger.log.notifications import LogSignal


async def test_a_bell_rung_in_turns_wakes_everybody_and_lets_others_in_between() -> None:
    signal = LogSignal()
    woken: list[str] = []

    async def wait(name: str) -> None:
        await signal.wait(0, 20)
        woken.append(name)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(25):
            tasks.create_task(wait("waiting"))
        await asyncio.sleep(0)
        ringing = tasks.create_task(signal.notify_in_batches(10))
        while not ringing.done():
            await asyncio.sleep(0)
            woken.append("another")

    assert woken.count("waiting") == 25
    assert max(len(list(run)) for name, run in groupby(woken) if name == "waiting") <= 10


async def test_who_looks_while_it_is_ringing_does_not_sleep_through_it() -> None:
    signal = LogSignal()
    waiting = [asyncio.create_task(signal.wait(0, 20)) for _ in range(3)]
    await asyncio.sleep(0)
    ringing = asyncio.create_task(signal.notify_in_batches(1))
    await asyncio.sleep(0)

    async with asyncio.timeout(10):
        await signal.wait(0, 600)
        await asyncio.gather(ringing, *waiting)

    assert signal.generation == 1
