"""What the logs that are measured hold: campaigns and jobs to refer to, and events in the usual mixes.

Events go through the service's own door (read, judge, COPY, store, commit), so that everything said of them later is
true: they fold, seal and verify.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec

from ledger.bench import traffic
from ledger.database import Connection, Database
from ledger.domain.errors import Refused
from ledger.domain.event import Request
from ledger.log.append import append
from ledger.log.decode import read_candidate, split_body
from projections.worker import fold_page

if TYPE_CHECKING:
    pass

GROUP_EVENTS = 2_000
"""As many as the service itself puts into one transaction at most."""

BUDGET = "1000000000"


async def add_campaigns_and_jobs(database: Database) -> None:
    """Open the campaigns and the running jobs that the load refers to."""
    events: list[dict[str, object]] = []
    ids = traffic.Ids()
    for number in range(traffic.CAMPAIGNS):
        data = {"name": f"Campaign {number}", "budget": BUDGET, "start_date": "2025-01-01T00:00:00Z"}
        stream = {"stream_id": traffic.campaign_id(number)}
        events += [
            {"type": "campaign.created", "id": ids(), **stream, "data": data},
            {"type": "campaign.activated", "id": ids(), **stream},
        ]
    for number in range(traffic.JOBS):
        campaign = traffic.campaign_id(number % traffic.CAMPAIGNS)
        stream = {"stream_id": traffic.job_id(number)}
        queued = {"agent_type": "analyst", "input_data": {"topic": "autumn"}, "campaign_id": campaign}
        events += [
            {"type": "job.queued", "id": ids(), **stream, "data": queued},
            {"type": "job.started", "id": ids(), **stream},
        ]
    bodies = (
        msgspec.json.encode(events[start : start + GROUP_EVENTS]) for start in range(0, len(events), GROUP_EVENTS)
    )
    await _append(database, bodies)


async def add_events(database: Database, kind: str, events: int) -> None:
    """Record so many events.

    Args:
        kind: `trace`, the mix of jobs and costs; or `costs`.
    """
    ids = traffic.Ids()
    body_of = traffic.trace_body if kind == "trace" else traffic.costs_body
    sizes = [GROUP_EVENTS] * (events // GROUP_EVENTS) + [events % GROUP_EVENTS] * (events % GROUP_EVENTS > 0)
    await _append(database, (body_of(ids, size) for size in sizes))


async def _append(database: Database, bodies: Iterable[bytes]) -> None:
    async with database.connection() as connection:
        for body in bodies:
            texts, _ = split_body(body, ndjson=False)
            candidates = [read_candidate(text, index, "local", None) for index, text in enumerate(texts)]
            verdicts, _ = await append(connection, [Request(candidates)])
            refusals = [answer for answer in verdicts[0] if isinstance(answer, Refused)]
            assert not refusals, refusals[0]


async def fold_all(database: Database) -> None:
    """Fold the log into the read models, in this process."""
    while await fold_page(database):
        pass


async def until_folded(connection: Connection) -> None:
    """Wait until the worker has come to the log's end."""
    head = await connection.fetchval("SELECT position FROM ledger.log_head")
    async with aclosing(checkpoints(connection)) as positions:
        async for position in positions:
            if position >= head:
                return


async def checkpoints(connection: Connection) -> AsyncGenerator[int]:
    """Where the read models stand, looked at every few milliseconds."""
    while True:
        yield await connection.fetchval("SELECT position FROM ledger.projection_checkpoints WHERE name = 'read_models'")
        await asyncio.sleep(0.005)
