"""Load on the API from a process of its own: wrk with `load.lua` where it is installed, else `client.py`."""

import random
import shutil
import sys
from pathlib import Path
from typing import Literal

import msgspec

from ledger.bench import traffic
from ledger.bench.processes import MeasurementError, run_program

Kind = Literal["costs", "trace", "holds", "reads"]

SCRIPT = Path(__file__).with_name("load.lua")


class Loaded(msgspec.Struct):
    """What was answered. `settled` and `refused` are of holds; `failed` is every other answer that was not wanted."""

    requests: int
    seconds: float
    settled: int
    refused: int
    failed: int
    p50_ms: float
    p99_ms: float


def generator() -> str:
    """Which program makes the load."""
    return "wrk, one thread, with ledger/bench/load.lua" if shutil.which("wrk") else "ledger.bench.client (asyncio)"


async def put_load(
    url: str,
    kind: Kind,
    *,
    seconds: int,
    connections: int,
    events: int = 1,
    amount: str = "0.5",
    cost: str = "0.25",
    folder: Path,
) -> Loaded:
    """Send requests for so long.

    Args:
        events: in a request.
        amount, cost: of a hold, and what it is settled at.
        folder: where the program runs.

    Raises:
        MeasurementError: a request failed.
    """
    if wrk := shutil.which("wrk"):
        seed = str(random.randrange(2**31))  # noqa: S311
        arguments = (kind, str(events), traffic.stem(), seed, str(traffic.CAMPAIGNS), str(traffic.JOBS), amount, cost)
        options = ("-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", SCRIPT)
        said = await run_program(wrk, *options, url, "--", *arguments, folder=folder)
    else:
        client = (sys.executable, "-m", "ledger.bench.client", url, str(seconds), str(connections))
        said = await run_program(*client, kind, str(events), amount, cost, folder=folder)
    result = next((line for line in said.splitlines() if line.startswith("RESULT ")), None)
    if result is None:
        raise MeasurementError(f"the load generator says nothing of its result: {said[-1000:]}")
    loaded = msgspec.json.decode(result.removeprefix("RESULT "), type=Loaded)
    if loaded.failed or not loaded.requests:
        raise MeasurementError(f"{loaded.failed:,} of {loaded.requests:,} requests ({kind}) failed: {said[-1000:]}")
    return loaded
