"""The check that a process which appends alone uses the optimistic path again."""

from itertools import chain, repeat

import pytest

from ledger.bench.faults import fast_path_check
from ledger.bench.faults.fast_path_check import violations


class Process:
    """An API process whose events get these positions, and which has appended these numbers of optimistic groups."""

    def __init__(self, positions: list[int], groups: list[float]) -> None:
        self._positions = iter(positions)
        self._groups = chain(groups, repeat(groups[-1]))

    async def append(self) -> int:
        return next(self._positions)

    async def optimistic_groups(self) -> float:
        return next(self._groups)


async def found(positions: list[int], groups: list[float]) -> list[str]:
    process = Process(positions, groups)
    return await violations(process.append, process.optimistic_groups)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_path_check, "APPENDS_PAUSE_SECONDS", 0)


async def test_a_process_that_returns_to_the_optimistic_path_keeps_the_promise() -> None:
    assert await found([1, 2, 3], [5, 5, 5, 6]) == []


async def test_a_process_that_stays_on_the_locked_path_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_path_check, "RETURN_SECONDS_MAX", -1.0)

    (violation,) = await found([1, 2, 3], [5])

    assert "not on the optimistic path" in violation


async def test_the_time_counts_again_from_an_event_of_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_path_check, "RETURN_SECONDS_MAX", -1.0)

    assert await found([1, 3, 5, 7], [5, 5, 5, 6]) == []


async def test_others_that_never_stop_appending_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_path_check, "ALONE_SECONDS_MAX", 0.0)

    (violation,) = await found([1, 3, 5], [5])

    assert "still appending" in violation
