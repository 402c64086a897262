"""Appends at a steady pace, and how soon they can be read: a program of its own.

    python -m ledger.bench.pace URL SECONDS EVENTS_PER_SECOND

Events are sent when their time has come, whether or not earlier ones were answered. Of every tenth, the time is taken
from the answer of its append to the answer of a read that asks for its position.
"""

import asyncio
import random
import sys
import time

import msgspec
import uvloop

from ledger.bench import traffic
from ledger.bench.client import Connection

CONNECTIONS = 64
SAMPLED = 10


async def main(url: str, seconds: float, rate: float) -> dict[str, float]:
    """Send for so long; what was seen."""
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        free.put_nowait(await Connection.open(url))
    ids, samples = traffic.Ids(), []

    async def send(is_sample: bool) -> None:
        connection = await free.get()
        status, body = await connection.post(traffic.costs_body(ids, 1))
        answered = time.perf_counter()
        assert status == 201, body
        if is_sample:
            position = msgspec.json.decode(body)["position"]
            campaign = traffic.campaign_id(random.randrange(traffic.CAMPAIGNS))  # noqa: S311
            status, body = await connection.get(f"/v1/campaigns/{campaign}?min_position={position}")
            assert status == 200, body
            samples.append((time.perf_counter() - answered) * 1e3)
        free.put_nowait(connection)

    began, sent = time.perf_counter(), 0
    async with asyncio.TaskGroup() as tasks:
        while (elapsed := time.perf_counter() - began) < seconds:
            while sent < elapsed * rate:
                tasks.create_task(send(sent % SAMPLED == 0))
                sent += 1
            await asyncio.sleep(0.001)
    samples.sort()
    return {
        "sent": sent,
        "samples": len(samples),
        "p50_ms": samples[len(samples) // 2],
        "p99_ms": samples[len(samples) * 99 // 100],
    }


if __name__ == "__main__":
    _, _url, _seconds, _rate = sys.argv
    sys.stdout.write(msgspec.json.encode(uvloop.run(main(_url, float(_seconds), float(_rate)))).decode() + "\n")
