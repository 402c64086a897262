"""Time slices: a long loop lets other tasks run in between."""

import asyncio
from itertools import groupby

import pytest

from ledger import time_slices
from ledger.time_slices import in_slices


class Clock:
    """A clock that a test sets."""

    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


async def test_other_tasks_run_after_each_slice_and_not_within_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, seen = Clock(), []
    monkeypatch.setattr(time_slices, "time", clock)

    async def another_task() -> None:
        while True:
            seen.append("other")
            await asyncio.sleep(0)

    other = asyncio.create_task(another_task())
    async for number in in_slices(range(6)):
        seen.append(str(number))
        clock.seconds += time_slices.SLICE_SECONDS / 3
    other.cancel()

    # Another task may run several times in a pause.
    assert [key for key, _ in groupby(seen)] == ["0", "1", "2", "other", "3", "4", "5", "other"]


async def test_a_pause_is_as_long_as_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, pauses = Clock(), []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(time_slices, "time", clock)
    monkeypatch.setattr(asyncio, "sleep", sleep)

    async for _ in in_slices(range(4)):
        clock.seconds += time_slices.SLICE_SECONDS / 2

    assert pauses == [time_slices.SLICE_SECONDS] * 2


async def test_every_item_is_yielded_in_order() -> None:
    assert [item async for item in in_slices(range(1_000))] == list(range(1_000))
    assert [item async for item in in_slices([])] == []
