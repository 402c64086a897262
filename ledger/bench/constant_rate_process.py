"""Runs the load at a constant rate (`constant_rate.py`) against the API, as a separate process."""

import sys
from pathlib import Path
from typing import Literal

import msgspec

from ledger.bench.constant_rate import LatencyResult
from ledger.bench.errors import MeasurementError
from ledger.bench.processes import run_program

SENT_SHARE_MIN = 0.95


async def run_at_constant_rate(
    url: str,
    measured: Literal["appends", "visibility"],
    *,
    seconds: int,
    events_per_second: int,
    key: str = "",
    folder: Path,
) -> LatencyResult:
    """Send single events at a constant rate.

    Args:
        url: of the API, without a path.
        measured: the latency of appends, or of their visibility to reads.
        seconds: how long to send.
        events_per_second: the rate.
        key: the API key; empty if the service needs none.
        folder: the working directory of the load generator.

    Returns:
        the latencies.

    Raises:
        MeasurementError: a connection was lost, a read failed, or the machine is too busy for the rate.
    """
    output = await run_program(
        *(sys.executable, "-m", "ledger.bench.constant_rate"),
        *(url, str(seconds), str(events_per_second), measured, key),
        folder=folder,
    )
    result = msgspec.json.decode(output, type=LatencyResult)
    if result.sent < SENT_SHARE_MIN * seconds * events_per_second:
        raise MeasurementError(
            f"only {result.sent / seconds:.0f} of {events_per_second} events/s were sent: the machine is too busy"
        )
    return result
