"""Batches with one faulty event: mode=independent refuses only that event, with the true reason."""

import json
from typing import Any

import pytest

from tests.api.helpers import NDJSON, send, slug
from tests.conftest import Service
from tests.events import cost

COST = b'{"type": "cost.recorded", "data": {"resource_type": "other", "cost": 1, "description": %s}}'
JOB = b'{"type": "job.queued", "data": {"agent_type": "analyst", "input_data": {"a": %s}}}'

FAULTS = {
    "lone surrogate": (COST % b'"\\ud800"', 422, "$.data.description", "surrogate"),
    "NUL": (COST % b'"\\u0000"', 422, "$.data.description", "NUL"),
    "long integer": (JOB % (b"9" * 5_000), 422, "$.data.input_data.a", "digits"),
    "repeated member": (JOB % b'{"b": 1, "b": 1}', 422, "$.data.input_data.a.b", "more than once"),
    "invalid UTF-8": (COST % b'"\xff"', 400, None, "UTF-8"),
    "deep nesting": (JOB % (b"[" * 150 + b"]" * 150), 400, None, "nested too deeply"),
    "very deep nesting": (JOB % (b'[{"":' * 10_000 + b"1" + b"}]" * 10_000), 400, None, "nested too deeply"),
}


def good() -> bytes:
    """Encode an event that is accepted."""
    return json.dumps(cost(description="ä, [b] {c}")).encode()


@pytest.mark.parametrize("as_ndjson", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
async def test_only_the_faulty_event_is_refused(shared: Service, fault: str, as_ndjson: bool) -> None:
    faulty, status, path, reason = FAULTS[fault]
    events = [good(), faulty, good()]
    body = b"\n".join(events) if as_ndjson else b" [ %b ] " % b" , ".join(events)

    answered, answer = await send(shared, body, headers=NDJSON if as_ndjson else None, mode="independent")

    assert answered == 200
    first, problem, last = answer["results"]
    assert (first["position"] + 1, first["duplicate"], last["duplicate"]) == (last["position"], False, False)
    assert (problem["status"], problem["index"]) == (status, 1)
    assert reason in problem["detail"]
    assert [error["path"] for error in problem.get("errors", [])] == ([path] if path else [])


@pytest.mark.parametrize("fault", FAULTS)
async def test_an_atomic_batch_is_refused_with_the_index_and_the_path_of_the_fault(shared: Service, fault: str) -> None:
    faulty, status, path, reason = FAULTS[fault]
    head = await shared.head()

    answered, problem = await send(shared, b"[%b,%b]" % (good(), faulty))

    assert (answered, problem["index"]) == (status, 1)
    assert reason in problem["detail"]
    errors: list[dict[str, Any]] = problem.get("errors", [])
    assert [(error["index"], error["path"]) for error in errors] == ([(1, path)] if path else [])
    assert await shared.head() == head


@pytest.mark.parametrize(
    "body",
    [
        b'[{"a": 1} {"b": "\\ud800"}]',
        b'[{"a": "\\ud800"},]',
        b'[{"a": "\\ud800"}',
        b'[{"a": "\\ud800"}] x',
        b'[{"a": "\\ud800"}, {"a": NaN}]',
        b"[%b]" % (b"[" * 5_000),
        b"[%b, x]" % (b"[" * 5_000 + b"]" * 5_000),
    ],
)
async def test_a_body_that_is_not_json_is_refused_as_a_whole(shared: Service, body: bytes) -> None:
    answered, problem = await send(shared, body, mode="independent")

    assert (answered, slug(problem)) == (400, "malformed")
