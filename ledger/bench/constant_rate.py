"""Open-loop load at a constant rate, as a separate process: latency of appends or of visibility.

    python -m ledger.bench.constant_rate URL SECONDS EVENTS_PER_SECOND MEASURED KEY

Events are sent on schedule, whether or not earlier ones were answered. MEASURED is `appends`: the time from the
scheduled moment of an event to the response; or `visibility`: for every tenth event, the time from the response of the
append to the response of a read with its position as `min_position`. KEY is an API key, or empty. It prints a
`LatencyResult` as JSON.
"""

import asyncio
import sys
import time

import msgspec
import uvloop

from ledger.bench import workload
from ledger.bench.http_connection import HttpConnection

CONNECTIONS = 64
EVENTS_PER_READ = 10

RESPONSE_SECONDS_MAX = 60
"""How long the last responses may take after the end of the load."""


class LatencyResult(msgspec.Struct):
    """How many events were sent, how many were refused, and the latencies of those measured.

    `refusal` is the first response that refused an event.
    """

    sent: int
    refused: int
    refusal: str
    samples: int
    p50_ms: float
    p99_ms: float


class ConstantRate:
    """The load: the connections without a request in flight, and what was measured."""

    def __init__(self, idle: "asyncio.Queue[HttpConnection]", *, measures_visibility: bool) -> None:
        self.sent = 0
        self.refusals: list[str] = []
        self.samples: list[float] = []
        self._idle = idle
        self._measures_visibility = measures_visibility
        self._new_id = workload.IdGenerator()

    async def run(self, seconds: float, events_per_second: float) -> None:
        """Send events on schedule.

        Args:
            seconds: how long to send.
            events_per_second: the rate.

        Raises:
            ExceptionGroup: a read was refused, or a connection was lost.
        """
        began = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            while (elapsed := time.perf_counter() - began) < seconds:
                while self.sent < elapsed * events_per_second:
                    tasks.create_task(self._send(began + self.sent / events_per_second, self.sent))
                    self.sent += 1
                await asyncio.sleep(0.001)

    async def _send(self, scheduled_at: float, number: int) -> None:
        connection = await self._idle.get()
        status, body = await connection.fetch(connection.post_request(workload.costs_body(self._new_id, 1)))
        responded_at = time.perf_counter()
        if status != 201:
            self.refusals.append(f"{status} {body[:1000].decode(errors='replace')}")
        elif not self._measures_visibility:
            self.samples.append(responded_at - scheduled_at)
        elif number % EVENTS_PER_READ == 0:
            await self._read(connection, msgspec.json.decode(body)["position"])
            self.samples.append(time.perf_counter() - responded_at)
        self._idle.put_nowait(connection)

    async def _read(self, connection: HttpConnection, position: int) -> None:
        campaign = workload.campaign_id(workload.below(workload.CAMPAIGNS))
        path = f"/v1/campaigns/{campaign}?min_position={position}"
        status, body = await connection.fetch(connection.get_request(path))
        assert status == 200, body


async def main(url: str, seconds: float, events_per_second: float, measured: str, key: str) -> LatencyResult:
    """Send events at a constant rate.

    Args:
        url: of the API, without a path.
        seconds: how long to send.
        events_per_second: the rate.
        measured: `appends` or `visibility`.
        key: the API key; empty if the service needs none.

    Returns:
        the latencies.

    Raises:
        ExceptionGroup: a read was refused, or a connection was lost.
        TimeoutError: responses were still missing long after the end.
    """
    idle: asyncio.Queue[HttpConnection] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        idle.put_nowait(await HttpConnection.open(url, key))
    load = ConstantRate(idle, measures_visibility=measured == "visibility")
    async with asyncio.timeout(seconds + RESPONSE_SECONDS_MAX):
        await load.run(seconds, events_per_second)
    samples = sorted(load.samples) or [0.0]
    return LatencyResult(
        sent=load.sent,
        refused=len(load.refusals),
        refusal=load.refusals[0] if load.refusals else "",
        samples=len(load.samples),
        p50_ms=samples[len(samples) // 2] * 1e3,
        p99_ms=samples[len(samples) * 99 // 100] * 1e3,
    )


if __name__ == "__main__":
    _, _url, _seconds, _rate, _measured, _key = sys.argv
    _result = uvloop.run(main(_url, float(_seconds), float(_rate), _measured, _key))
    sys.stdout.write(msgspec.json.encode(_result).decode() + "\n")
