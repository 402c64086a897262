"""Comparing retries by value is bounded for objects and requests, with pauses for the event loop."""

import asyncio
from typing import Any

import pytest

from ledger.domain import same_content, working_state
from ledger.domain.errors import EventIdConflict
from ledger.domain.event import Candidate, Receipt, Request
from ledger.domain.json_values import COST_MAX, canonical_cost
from ledger.domain.judge import judge
from ledger.domain.working_state import WorkingState
from ledger.log import idempotency
from ledger.log.append import PAUSE_COST, judge_all
from ledger.log.decode import read_candidate
from ledger.log.idempotency import IdempotencyKey
from tests.domain.helpers import NOW

KEY = IdempotencyKey(b"secret", "local", "key")


def spelled(index: int, spelling: str, values: int) -> Candidate:
    """Return an event with an object of so many values; those with equal indexes have the same id."""
    body = '{"type":"job.queued","data":{"agent_type":"analyst","input_data":{%s:[0%s]}}}'
    return read_candidate((body % (spelling, ",0" * (values - 1))).encode(), index, "local", KEY.event_id)


def recorded(events: int, values: int) -> WorkingState:
    """Return a state in which events with such objects are recorded."""
    state = WorkingState(0, NOW)
    judge(state, Request([spelled(index, '"a"', values) for index in range(events)]))
    return state


def repeated(events: int, values: int) -> list[Candidate]:
    """Return the same events, written differently."""
    return [spelled(index, r'"\u0061"', values) for index in range(events)]


def compared(monkeypatch: pytest.MonkeyPatch, module: Any) -> list[int]:
    """Return a list to which every canonical form that a module makes adds the length of its text."""
    lengths: list[int] = []
    canonical_json = module.canonical_json

    def measured(text: str | bytes) -> bytes:
        lengths.append(len(text))
        canonical: bytes = canonical_json(text)
        return canonical

    monkeypatch.setattr(module, "canonical_json", measured)
    return lengths


def kinds(verdict: list[Any]) -> list[type]:
    """Return whether each event is a duplicate (a receipt) or a conflict."""
    return [type(one) for one in verdict]


def test_a_large_object_is_the_same_only_if_it_is_written_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = compared(monkeypatch, same_content)
    state = recorded(1, 199_000)

    assert kinds(judge(state, Request([spelled(0, '"a"', 199_000)]))) == [Receipt]
    assert kinds(judge(state, Request(repeated(1, 199_000)))) == [EventIdConflict]
    assert lengths == []


def test_a_smaller_object_is_compared_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = compared(monkeypatch, same_content)
    values = COST_MAX // 2 - 500

    assert kinds(judge(recorded(1, values), Request(repeated(1, values)))) == [Receipt]
    assert len(lengths) == 2


def test_a_request_compares_by_value_up_to_a_total_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = sum(canonical_cost(b'{"%b":[0%b]}' % (name, b",0" * 99)) for name in (b"a", rb"\u0061"))
    monkeypatch.setattr(working_state, "COMPARISON_COST_MAX", 3 * cost)
    state = recorded(5, 100)
    request = Request(repeated(5, 100), independent=True)

    for _ in range(2):
        assert kinds(judge(state, request)) == [Receipt] * 3 + [EventIdConflict] * 2


async def test_comparing_pauses_for_the_event_loop() -> None:
    state, values = recorded(20, 5_000), 5_000
    requests = [*(Request([one]) for one in repeated(20, values)), Request(repeated(10, values))]
    costs: list[int] = []

    async def watch() -> None:
        while True:
            costs.append(state.comparison_cost)
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    verdicts = await judge_all(state, requests)
    watching.cancel()

    assert {kind for verdict in verdicts for kind in kinds(verdict)} == {Receipt}
    steps = [after - before for before, after in zip(costs, [*costs[1:], state.comparison_cost], strict=True)]
    assert sum(steps) > 10 * PAUSE_COST
    assert max(steps[1:]) <= PAUSE_COST + COST_MAX


def test_the_content_of_an_idempotency_key_has_no_canonical_form_of_large_texts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lengths = compared(monkeypatch, idempotency)

    assert idempotency._content(spelled(0, '"a"', 100)) == idempotency._content(repeated(1, 100)[0])
    assert len(lengths) == 2
    assert idempotency._content(spelled(0, '"a"', 199_000)) != idempotency._content(repeated(1, 199_000)[0])
    assert len(lengths) == 2
