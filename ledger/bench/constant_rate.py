"""Open-loop load at a constant rate, as a separate process: how soon an append is visible to reads.

    python -m ledger.bench.constant_rate URL SECONDS EVENTS_PER_SECOND

Events are sent on schedule, whether or not earlier ones were answered. For every tenth event it measures the time from
the response of the append to the response of a read with its position as `min_position`. It prints a
`VisibilityResult` as JSON.
"""

import asyncio
import sys
import time

import msgspec
import uvloop

from ledger.bench import workload
from ledger.bench.http_connection import HttpConnection

CONNECTIONS = 64
EVENTS_PER_SAMPLE = 10


class VisibilityResult(msgspec.Struct):
    """How many events were sent, how many were read back, and the time until they were visible."""

    sent: int
    samples: int
    p50_ms: float
    p99_ms: float


async def main(url: str, seconds: float, events_per_second: float) -> VisibilityResult:
    """Send events at a constant rate.

    Args:
        url: of the API, without a path.
        seconds: how long to send.
        events_per_second: the rate.

    Returns:
        the time until appended events were visible.

    Raises:
        AssertionError: an append or a read failed.
    """
    idle: asyncio.Queue[HttpConnection] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        idle.put_nowait(await HttpConnection.open(url))
    new_id = workload.IdGenerator()
    samples: list[float] = []

    async def send(is_sample: bool) -> None:
        connection = await idle.get()
        status, body = await connection.fetch(connection.post_request(workload.costs_body(new_id, 1)))
        appended_at = time.perf_counter()
        assert status == 201, body
        if is_sample:
            position = msgspec.json.decode(body)["position"]
            campaign = workload.campaign_id(workload.below(workload.CAMPAIGNS))
            path = f"/v1/campaigns/{campaign}?min_position={position}"
            status, body = await connection.fetch(connection.get_request(path))
            assert status == 200, body
            samples.append((time.perf_counter() - appended_at) * 1e3)
        idle.put_nowait(connection)

    began, sent = time.perf_counter(), 0
    async with asyncio.TaskGroup() as tasks:
        while (elapsed := time.perf_counter() - began) < seconds:
            while sent < elapsed * events_per_second:
                tasks.create_task(send(sent % EVENTS_PER_SAMPLE == 0))
                sent += 1
            await asyncio.sleep(0.001)
    samples.sort()
    return VisibilityResult(sent, len(samples), samples[len(samples) // 2], samples[len(samples) * 99 // 100])


if __name__ == "__main__":
    _, _url, _seconds, _rate = sys.argv
    _result = uvloop.run(main(_url, float(_seconds), float(_rate)))
    sys.stdout.write(msgspec.json.encode(_result).decode() + "\n")
