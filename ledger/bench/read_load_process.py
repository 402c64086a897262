"""Runs the reads that compete with appends (`read_load.py`) against the API, as a separate process."""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec

from ledger.bench.errors import MeasurementError
from ledger.bench.processes import child_environment, end_process

START_SECONDS_MAX = 60

WRONG_STATUSES = (400, 401, 403, 404, 406)
"""Responses that show that the load is not what it should be."""


class Reads(msgspec.Struct, frozen=True):
    """What is read on how many connections at the same time.

    `key` is the API key. `retry_seconds` is the pause of a client after a 503. `is_abandoned`: the client closes each
    connection as soon as its request is sent.
    """

    name: str
    connections: int
    path: str
    key: str
    accept: str = "application/json"
    retry_seconds: float = 1.0
    is_abandoned: bool = False


@asynccontextmanager
async def competing_reads(url: str, reads: Reads, folder: Path) -> AsyncIterator[Counter[int]]:
    """Send the same request again and again on each of the connections during the context.

    Args:
        url: of the API, without a path.
        reads: what to read.
        folder: the working directory of the load generator.

    Yields:
        the number of responses by status, once the context is left; those in progress then are not counted.

    Raises:
        MeasurementError: a connection was lost, or the request is one that the service does not serve.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ledger.bench.read_load", url, str(reads.connections), reads.path),
        *(reads.accept, reads.key, str(reads.retry_seconds), str(int(reads.is_abandoned))),
        env=child_environment(None, folder),
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    statuses: Counter[int] = Counter()
    try:
        assert process.stdout is not None
        async with asyncio.timeout(START_SECONDS_MAX):
            has_begun = await process.stdout.readline()
        if has_begun:
            yield statuses
            with suppress(ProcessLookupError):
                process.terminate()
        out, errors = await process.communicate()
    finally:
        await end_process(process)
    if process.returncode != 0:
        raise MeasurementError(f"reading {reads.path} failed: {errors.decode(errors='replace')[-2000:]}")
    statuses.update(msgspec.json.decode(out, type=dict[int, int]))
    if wrong := [status for status in statuses if status in WRONG_STATUSES]:
        raise MeasurementError(f"GET {reads.path} was answered {wrong[0]}")
