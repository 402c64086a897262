"""The workload of the benchmarks: request bodies and paths, with time-ordered UUIDs.

It refers to campaigns and jobs created beforehand (`prepared_data.py`), whose ids follow from their numbers.
"""

import random
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

CAMPAIGNS = 100
JOBS = 2_000
MODELS = ("gpt-4o", "gpt-4o-mini", "claude-3-5-sonnet", "gemini-1.5-pro")

EVENTS_PER_CALL = 4
"""Events recorded for one call in the trace: its job queued, started and completed, and its cost."""


def campaign_id(number: int) -> str:
    """Return the id of a campaign, numbered from 0."""
    return f"00000000-0000-7000-8000-c000{number:08d}"


def job_id(number: int) -> str:
    """Return the id of a job, numbered from 0."""
    return f"00000000-0000-7000-8000-a000{number:08d}"


class IdGenerator:
    """Version 7 UUIDs in the order of their creation.

    The millisecond of construction is the timestamp of all of them, so that generators constructed at least a
    millisecond apart never return the same id.
    """

    def __init__(self) -> None:
        timestamp = f"{time.time_ns() // 1_000_000:012x}"
        self._prefix = f"{timestamp[:8]}-{timestamp[8:]}-7000-8000-"
        self._count = 0

    def __call__(self) -> str:
        self._count += 1
        return f"{self._prefix}{self._count:012x}"


def as_uuid(text: str) -> UUID:
    """Return the id in the type that the database driver takes."""
    return UUID(text)


def below(limit: int) -> int:
    """Return a random number from 0 up to, not including, `limit`.

    Five times as fast as `random.randrange`; the bias does not matter here, the processor time of the load does.
    """
    return int(random.random() * limit)  # noqa: S311


def cost_event(new_id: IdGenerator, job: str) -> str:
    """Return a `cost.recorded` of a job."""
    return (
        f'{{"type":"cost.recorded","id":"{new_id()}","data":{{"resource_type":"llm_api",'
        f'"cost":"0.{1 + below(9_999):04d}5","tokens_used":{1 + below(9_999)},'
        f'"model_used":"{MODELS[below(len(MODELS))]}","provider":"openai","agent_job_id":"{job}"}}}}'
    )


def usage_event(new_id: IdGenerator, job: str, *, has_cost: bool) -> str:
    """Return a `cost.recorded` of a job with usage, and with a cost if `has_cost`."""
    cost = f'"cost":"0.{1 + below(9_999):04d}5",' if has_cost else ""
    read = below(1_000)
    usage = f'"input_tokens":{read + below(9_000)},"output_tokens":{below(2_000)},"cache_read_tokens":{read}'
    return (
        f'{{"type":"cost.recorded","id":"{new_id()}","data":{{"resource_type":"llm_api",{cost}'
        f'"model_used":"{MODELS[below(len(MODELS))]}","provider":"openai","agent_job_id":"{job}",'
        f'"usage":{{{usage}}}}}}}'
    )


def price_event(model: str) -> dict[str, Any]:
    """Return the `price.published` of a model, with a prefix as price lists have it."""
    return {
        "type": "price.published",
        "data": {
            "provider": "openai",
            "model": model,
            "prefixes": [f"{model}-20"],
            "rates": {"input_tokens": "2.5", "output_tokens": "10", "cache_read_tokens": "1.25"},
            "effective_from": "2023-01-01T00:00:00Z",
            "source": {"name": "bench", "version": "1"},
        },
    }


def call_events(new_id: IdGenerator) -> list[str]:
    """Return the four events of a call in the trace, with a new job (see scripts/replay_trace.py)."""
    job, campaign = new_id(), campaign_id(below(CAMPAIGNS))
    time_field = '"occurred_at":"2023-11-16T18:15:46.680590Z"'
    return [
        f'{{"type":"job.queued","id":"{new_id()}","stream_id":"{job}",{time_field},"data":{{"agent_type":"analyst",'
        f'"input_data":{{"context_tokens":{1 + below(9_999)}}},"campaign_id":"{campaign}"}}}}',
        f'{{"type":"job.started","id":"{new_id()}","stream_id":"{job}",{time_field}}}',
        f'{{"type":"job.completed","id":"{new_id()}","stream_id":"{job}",{time_field},'
        f'"data":{{"output_data":{{"generated_tokens":{1 + below(999)}}}}}}}',
        cost_event(new_id, job),
    ]


def costs_body(new_id: IdGenerator, events: int) -> bytes:
    """Return a request body with `events` costs of random jobs: a single event if `events` is 1, else an array."""
    if events == 1:
        return cost_event(new_id, job_id(below(JOBS))).encode()
    return f"[{','.join(cost_event(new_id, job_id(below(JOBS))) for _ in range(events))}]".encode()


def usage_body(new_id: IdGenerator, events: int, *, has_cost: bool) -> bytes:
    """Return a request body with an array of `events` costs with usage of random jobs."""
    costs = (usage_event(new_id, job_id(below(JOBS)), has_cost=has_cost) for _ in range(events))
    return f"[{','.join(costs)}]".encode()


def trace_body(new_id: IdGenerator, events: int) -> bytes:
    """Return a request body with `events` events in the trace's mix of jobs and costs, in whole calls."""
    return f"[{','.join(event for _ in range(events // EVENTS_PER_CALL) for event in call_events(new_id))}]".encode()


def reserve_body(new_id: IdGenerator, amount: str) -> bytes:
    """Return a request body that places a hold on the first campaign."""
    return (
        f'{{"type":"cost.reserved","id":"{new_id()}","data":{{"resource_type":"llm_api","amount":"{amount}",'
        f'"campaign_id":"{campaign_id(0)}"}}}}'
    ).encode()


def settle_body(new_id: IdGenerator, stream_id: str, cost: str) -> bytes:
    """Return a request body that settles a hold.

    Args:
        new_id: makes the id of the event.
        stream_id: of the hold.
        cost: what was spent, in the currency of the ledger.

    Returns:
        the body, as JSON.
    """
    return f'{{"type":"cost.settled","id":"{new_id()}","stream_id":"{stream_id}","data":{{"cost":"{cost}"}}}}'.encode()


def read_paths() -> Iterator[str]:
    """Yield the paths that a dashboard reads, alternately: one campaign, and the newest budget entries."""
    while True:
        yield f"/v1/campaigns/{campaign_id(below(CAMPAIGNS))}"
        yield "/v1/budget-entries?limit=50"
