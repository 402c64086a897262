"""Runs the load generator (`load_client.py`) against the API, as a separate process."""

import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from ledger.bench.errors import MeasurementError
from ledger.bench.load_client import LoadResult
from ledger.bench.processes import run_program

Kind = Literal["costs", "trace", "usage", "usage_and_cost", "holds", "reads"]

Result = TypeVar("Result")

GENERATOR = "ledger.bench.load_client (asyncio, one process)"


async def run_load(
    url: str,
    kind: Kind,
    *,
    seconds: int,
    connections: int,
    events: int = 1,
    amount: str = "0.5",
    cost: str = "0.25",
    key: str = "",
    may_be_overloaded: bool = False,
    folder: Path,
) -> LoadResult:
    """Send requests for `seconds` on each of the connections.

    Args:
        url: of the API, without a path.
        kind: what to send.
        seconds: how long to send.
        connections: open at the same time, one request in flight on each.
        events: per request, for `costs` and `trace`.
        amount: of each hold.
        cost: at which each hold is settled.
        key: the API key; empty if the service needs none.
        may_be_overloaded: whether the service may answer 503.
        folder: the working directory of the load generator.

    Returns:
        what was answered.

    Raises:
        MeasurementError: a request failed, or none was answered.
    """
    output = await run_program(
        *(sys.executable, "-m", "ledger.bench.load_client"),
        *(url, str(seconds), str(connections), kind, str(events), amount, cost, key),
        folder=folder,
    )
    result = msgspec.json.decode(output, type=LoadResult)
    failed = result.failed + (0 if may_be_overloaded else result.overloaded)
    answered = result.requests + result.overloaded
    if failed or not answered:
        raise MeasurementError(f"{failed:,} of {answered:,} requests ({kind}) failed: {result.failure}")
    return result


@asynccontextmanager
async def in_background(load: Coroutine[Any, Any, Result]) -> AsyncIterator["asyncio.Task[Result]"]:
    """Run a load beside what is measured in the context, and wait for its end after the context.

    Args:
        load: lasts longer than the context.

    Yields:
        the load, which has its result after the context.

    Raises:
        MeasurementError: the load failed, or ended within the context.
    """
    task = asyncio.create_task(load)
    try:
        yield task
        ended_within = task.done()
        await task
        if ended_within:
            raise MeasurementError("the load in the background ended before what was measured beside it")
    finally:
        task.cancel()
        await asyncio.wait([task])
