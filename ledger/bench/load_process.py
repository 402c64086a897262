"""Runs the load generator (`load_client.py`) against the API, as a separate process."""

import sys
from pathlib import Path
from typing import Literal

import msgspec

from ledger.bench.errors import MeasurementError
from ledger.bench.load_client import LoadResult
from ledger.bench.processes import run_program

Kind = Literal["costs", "trace", "holds", "reads"]

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
        folder: the working directory of the load generator.

    Returns:
        what was answered.

    Raises:
        MeasurementError: a request failed, or none was answered.
    """
    output = await run_program(
        *(sys.executable, "-m", "ledger.bench.load_client"),
        *(url, str(seconds), str(connections), kind, str(events), amount, cost),
        folder=folder,
    )
    result = msgspec.json.decode(output, type=LoadResult)
    if result.failed or not result.requests:
        raise MeasurementError(f"{result.failed:,} of {result.requests:,} requests ({kind}) failed: {result.failure}")
    return result
