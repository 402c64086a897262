"""Data with much history behind one append: an entry with many adjustments, jobs with many open holds."""

from collections.abc import Iterator

from ledger.bench import workload
from ledger.bench.prepared_data import Event, append_events
from ledger.database import Database


async def add_entry(database: Database, adjustments: int) -> str:
    """Append a cost and as many adjustments of it; return the id of the entry."""
    new_id = workload.IdGenerator()
    entry = new_id()

    def events() -> Iterator[Event]:
        data = {"resource_type": "llm_api", "cost": "1", "campaign_id": workload.campaign_id(0)}
        yield {"type": "cost.recorded", "id": entry, "data": data}
        for _ in range(adjustments):
            yield adjustment(new_id(), entry)

    await append_events(database, events())
    return entry


def adjustment(event_id: str, entry: str) -> Event:
    """Return a `cost.adjusted` of an entry."""
    data = {"amount": "0.0001", "reason": "Billed again"}
    return {"type": "cost.adjusted", "id": event_id, "stream_id": entry, "data": data}


async def add_jobs(database: Database, jobs: int, *, holds_per_job: int) -> list[str]:
    """Append jobs with open holds; return the ids of the jobs."""
    new_id = workload.IdGenerator()
    ids = [new_id() for _ in range(jobs)]

    def events() -> Iterator[Event]:
        for job in ids:
            data: Event = {"agent_type": "analyst", "input_data": {}, "campaign_id": workload.campaign_id(0)}
            yield {"type": "job.queued", "id": job, "data": data}
            for _ in range(holds_per_job):
                data = {"resource_type": "llm_api", "amount": "0.01", "expires_in": 86_400, "agent_job_id": job}
                yield {"type": "cost.reserved", "id": new_id(), "data": data}

    await append_events(database, events())
    return ids


def failures(jobs: list[str]) -> list[Event]:
    """Return a `job.failed` of each job."""
    data = {"error_message": "The provider is down"}
    return [{"type": "job.failed", "stream_id": job, "data": data} for job in jobs]
