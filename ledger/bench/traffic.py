"""What is sent: the requests of the load, each with ids of its own. `load.lua` says the same to wrk.

Campaigns and jobs are there before (`data.py`), with ids made from their numbers.
"""

import random
import time
from collections.abc import Iterator
from uuid import UUID

CAMPAIGNS = 100
JOBS = 2_000
MODELS = ("gpt-4o", "gpt-4o-mini", "claude-3-5-sonnet", "gemini-1.5-pro")

TRACE_EVENTS = 4
"""Events that one call of the trace becomes: its job queued, started and completed, and its cost."""


def campaign_id(number: int) -> str:
    """The id of a campaign, numbered from 0."""
    return f"00000000-0000-7000-8000-c000{number:08d}"


def job_id(number: int) -> str:
    """The id of a job, numbered from 0."""
    return f"00000000-0000-7000-8000-a000{number:08d}"


class Ids:
    """UUIDs in the order of their making, as version 7 has it; no two makers a millisecond apart make the same."""

    def __init__(self) -> None:
        self.stem = stem()
        self._made = 0

    def __call__(self) -> str:
        self._made += 1
        return f"{self.stem}000-8000-{self._made:012x}"


def stem() -> str:
    """The first 13 digits of UUIDs of this millisecond, of version 7."""
    digits = f"{time.time_ns() // 1_000_000:012x}"
    return f"{digits[:8]}-{digits[8:]}-7"


def as_uuid(text: str) -> UUID:
    """The id as the driver takes it."""
    return UUID(text)


def cost(ids: Ids, job: str) -> str:
    """A `cost.recorded` on a job."""
    return (
        f'{{"type":"cost.recorded","id":"{ids()}","data":{{"resource_type":"llm_api",'
        f'"cost":"0.{random.randint(1, 9_999):04d}5","tokens_used":{random.randint(1, 9_999)},'  # noqa: S311
        f'"model_used":"{random.choice(MODELS)}","provider":"openai","agent_job_id":"{job}"}}}}'  # noqa: S311
    )


def call(ids: Ids) -> list[str]:
    """A call of the trace: the four events of a job of its own (see scripts/replay_trace.py)."""
    job, campaign = ids(), campaign_id(random.randrange(CAMPAIGNS))  # noqa: S311
    when = '"occurred_at":"2023-11-16T18:15:46.680590Z"'
    return [
        f'{{"type":"job.queued","id":"{ids()}","stream_id":"{job}",{when},"data":{{"agent_type":"analyst",'
        f'"input_data":{{"context_tokens":{random.randint(1, 9_999)}}},"campaign_id":"{campaign}"}}}}',  # noqa: S311
        f'{{"type":"job.started","id":"{ids()}","stream_id":"{job}",{when}}}',
        f'{{"type":"job.completed","id":"{ids()}","stream_id":"{job}",{when},'
        f'"data":{{"output_data":{{"generated_tokens":{random.randint(1, 999)}}}}}}}',  # noqa: S311
        cost(ids, job),
    ]


def costs_body(ids: Ids, events: int) -> bytes:
    """A request of so many costs over all jobs: one event, or an array."""
    made = [cost(ids, job_id(random.randrange(JOBS))) for _ in range(events)]  # noqa: S311
    return (made[0] if events == 1 else f"[{','.join(made)}]").encode()


def trace_body(ids: Ids, events: int) -> bytes:
    """A request of so many events, in the trace's mix of jobs and costs; never parts a job's events."""
    return f"[{','.join(event for _ in range(events // TRACE_EVENTS) for event in call(ids))}]".encode()


def reserve_body(ids: Ids, amount: str) -> bytes:
    """A hold on the first campaign."""
    return (
        f'{{"type":"cost.reserved","id":"{ids()}","data":{{"resource_type":"llm_api","amount":"{amount}",'
        f'"campaign_id":"{campaign_id(0)}"}}}}'
    ).encode()


def settle_body(ids: Ids, stream_id: str, cost: str) -> bytes:
    """A hold settled."""
    return (f'{{"type":"cost.settled","id":"{ids()}","stream_id":"{stream_id}","data":{{"cost":"{cost}"}}}}').encode()


def read_paths() -> Iterator[str]:
    """What a dashboard reads: in turns one campaign, and the newest entries."""
    while True:
        yield f"/v1/campaigns/{campaign_id(random.randrange(CAMPAIGNS))}"  # noqa: S311
        yield "/v1/budget-entries?limit=50"
