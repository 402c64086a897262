"""Fills the databases of the benchmarks: campaigns, jobs, and events in the usual mixes.

Events pass through the service's own append code (decode, judge, store), never through generated rows, so that the
logs fold, seal and verify like real ones.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from itertools import chain, islice

import msgspec

from ledger.bench import workload
from ledger.database import Connection, Database
from ledger.domain.errors import Refused
from ledger.domain.event import Request
from ledger.log.append import append
from ledger.log.decode import read_candidate
from ledger.log.read import read_head
from ledger.log.request_body import split_body
from projections.checkpoint import read_position
from projections.worker import fold_page

EVENTS_PER_TRANSACTION = 2_000
"""The most events that the service itself appends in one transaction."""

BUDGET = "1000000000"

Event = dict[str, object]


async def add_campaigns_and_jobs(database: Database) -> None:
    """Append the active campaigns and running jobs that the workload refers to."""
    new_id = workload.IdGenerator()
    campaigns = (event for number in range(workload.CAMPAIGNS) for event in _campaign_events(new_id, number))
    jobs = (event for number in range(workload.JOBS) for event in _job_events(new_id, number))
    await append_events(database, chain(campaigns, jobs))


def _campaign_events(new_id: workload.IdGenerator, number: int) -> list[Event]:
    campaign = workload.campaign_id(number)
    data = {"name": f"Campaign {number}", "budget": BUDGET, "start_date": "2025-01-01T00:00:00Z"}
    return [
        {"type": "campaign.created", "id": new_id(), "stream_id": campaign, "data": data},
        {"type": "campaign.activated", "id": new_id(), "stream_id": campaign},
    ]


def _job_events(new_id: workload.IdGenerator, number: int) -> list[Event]:
    job, campaign = workload.job_id(number), workload.campaign_id(number % workload.CAMPAIGNS)
    data = {"agent_type": "analyst", "input_data": {"topic": "autumn"}, "campaign_id": campaign}
    return [
        {"type": "job.queued", "id": new_id(), "stream_id": job, "data": data},
        {"type": "job.started", "id": new_id(), "stream_id": job},
    ]


async def add_events(database: Database, kind: str, events: int) -> None:
    """Append generated events.

    Args:
        database: with the campaigns and jobs of `add_campaigns_and_jobs`.
        kind: `trace`, the mix of jobs and costs; or `costs`.
        events: how many; for `trace` a multiple of 4.
    """
    new_id = workload.IdGenerator()
    body = workload.trace_body if kind == "trace" else workload.costs_body
    whole, rest = divmod(events, EVENTS_PER_TRANSACTION)
    sizes = [EVENTS_PER_TRANSACTION] * whole + [rest] * (rest > 0)
    await _append(database, (body(new_id, size) for size in sizes))


async def append_events(database: Database, events: Iterable[Event]) -> None:
    """Append events, as many in each transaction as the service does."""
    remaining = iter(events)
    chunks = iter(lambda: list(islice(remaining, EVENTS_PER_TRANSACTION)), [])
    await _append(database, (msgspec.json.encode(chunk) for chunk in chunks))


async def _append(database: Database, bodies: Iterable[bytes]) -> None:
    async with database.connection() as connection:
        for body in bodies:
            texts, _ = split_body(body, ndjson=False)
            candidates = [read_candidate(text, index, "local", None) for index, text in enumerate(texts)]
            verdicts, _ = await append(connection, [Request(candidates)])
            refusals = [verdict for verdict in verdicts[0] if isinstance(verdict, Refused)]
            assert not refusals, refusals[0]


async def fold_all(database: Database) -> None:
    """Fold the whole log into the read models, in this process."""
    while await fold_page(database):
        pass


async def wait_until_folded(connection: Connection) -> None:
    """Wait until the worker has folded every event that is in the log now."""
    head = await read_head(connection)
    async with aclosing(poll_checkpoint(connection)) as positions:
        async for position in positions:
            if position >= head:
                return


async def poll_checkpoint(connection: Connection) -> AsyncGenerator[int]:
    """Yield the position up to which the read models are folded, every 5 ms."""
    while True:
        yield await read_position(connection)
        await asyncio.sleep(0.005)
