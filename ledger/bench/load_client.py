"""The load generator of the benchmarks, as a separate process: closed-loop HTTP on many connections.

    python -m ledger.bench.load_client URL SECONDS CONNECTIONS KIND EVENTS AMOUNT COST KEY

It prints a `LoadResult` as JSON. Each connection sends its next request as soon as the previous one is answered, or a
second later if the answer was 503 (`Retry-After: 1`). It sends from callbacks and not from a task: the less processor
time the load takes, the more is left for what is measured. KEY is an API key, or empty.
"""

import asyncio
import sys
import time
from collections import Counter, deque
from collections.abc import Callable

import msgspec
import uvloop

from ledger.bench import workload
from ledger.bench.http_connection import HttpConnection

RESPONSE_SECONDS_MAX = 10
"""How long the last responses may take after the end of the load."""

BUDGET_EXCEEDED = 402

OVERLOADED = 503
RETRY_SECONDS = 1.0
"""What the service asks for in `Retry-After`."""


class LoadResult(msgspec.Struct):
    """The answers to a load.

    `requests` and the latencies are without those answered with 503, which `overloaded` counts. `settled` and `refused`
    count holds. `failed` counts the other error responses, and `failure` is the first error response of any kind but a
    refused hold. `cpu_seconds` is the processor time of the load generator after its start.
    """

    requests: int
    overloaded: int
    seconds: float
    cpu_seconds: float
    settled: int
    refused: int
    failed: int
    failure: str
    p50_ms: float
    p99_ms: float


class Load:
    """The state shared by all connections: what to send next, and what was answered."""

    def __init__(self, kind: str, events: int, amount: str, cost: str) -> None:
        """Prepare a load.

        Args:
            kind: `costs`, `trace`, `usage`, `usage_and_cost`, `holds` or `reads`.
            events: per request, of costs and of the trace.
            amount: of each hold.
            cost: at which each hold is settled.
        """
        self.statuses: Counter[int] = Counter()
        self.latencies: list[float] = []
        self.settled = 0
        self.failure = ""
        self._has_holds = kind == "holds"
        self._granted_holds: deque[str] = deque()
        self._amount, self._cost = amount, cost
        self._new_id = workload.IdGenerator()
        paths = workload.read_paths()
        requests: dict[str, Callable[[HttpConnection], bytes]] = {
            "costs": lambda connection: connection.post_request(workload.costs_body(self._new_id, events)),
            "trace": lambda connection: connection.post_request(workload.trace_body(self._new_id, events)),
            "usage": lambda connection: connection.post_request(self._usage_body(events, has_cost=False)),
            "usage_and_cost": lambda connection: connection.post_request(self._usage_body(events, has_cost=True)),
            "holds": lambda connection: connection.post_request(self._hold_body()),
            "reads": lambda connection: connection.get_request(next(paths)),
        }
        self._next_request = requests[kind]

    async def run(self, connections: list[HttpConnection], seconds: float) -> None:
        """Send requests on all connections for `seconds`, and wait for the last responses.

        Raises:
            ConnectionError: a connection was lost.
            TimeoutError: responses were still missing after RESPONSE_SECONDS_MAX.
        """
        deadline = time.perf_counter() + seconds
        async with asyncio.timeout(seconds + RESPONSE_SECONDS_MAX):
            await asyncio.gather(*(self._start(connection, deadline) for connection in connections))

    def _start(self, connection: HttpConnection, deadline: float) -> asyncio.Future[None]:
        """Send the first request; the returned future is done once the response after the deadline has arrived."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        sent_at = 0.0

        def on_response(status: int, body: bytes) -> None:
            now = time.perf_counter()
            self._record(status, body)
            if status != OVERLOADED:
                self.latencies.append(now - sent_at)
            if now >= deadline:
                done.set_result(None)
            elif status == OVERLOADED:
                loop.call_later(RETRY_SECONDS, send)
            else:
                send()

        def send() -> None:
            nonlocal sent_at
            sent_at = time.perf_counter()
            connection.send(self._next_request(connection), on_response, done.set_exception)

        send()
        return done

    def _record(self, status: int, body: bytes) -> None:
        self.statuses[status] += 1
        if status >= 400 and status != BUDGET_EXCEEDED:
            self.failure = self.failure or f"{status} {body[:1000].decode(errors='replace')}"
        elif self._has_holds and status == 201:
            receipt = msgspec.json.decode(body)["events"][0]
            if receipt["version"] == 1:
                self._granted_holds.append(receipt["stream_id"])
            else:
                self.settled += 1

    def _usage_body(self, events: int, *, has_cost: bool) -> bytes:
        return workload.usage_body(self._new_id, events, has_cost=has_cost)

    def _hold_body(self) -> bytes:
        """Return the settlement of a granted hold if there is one, else a new hold."""
        if self._granted_holds:
            return workload.settle_body(self._new_id, self._granted_holds.popleft(), self._cost)
        return workload.reserve_body(self._new_id, self._amount)


async def main(url: str, seconds: float, connection_count: int, load: Load, key: str) -> LoadResult:
    """Put a load on the API.

    Args:
        url: of the API, without a path.
        seconds: how long to send.
        connection_count: connections open at the same time.
        load: what to send.
        key: the API key; empty if the service needs none.

    Returns:
        what was answered.

    Raises:
        ConnectionError: a connection was lost.
        TimeoutError: responses were still missing long after the end.
    """
    connections = [await HttpConnection.open(url, key) for _ in range(connection_count)]
    began, cpu_began = time.perf_counter(), time.process_time()
    await load.run(connections, seconds)
    elapsed, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    for connection in connections:
        connection.close()
    latencies = sorted(load.latencies) or [0.0]
    refused, overloaded = load.statuses[BUDGET_EXCEEDED], load.statuses[OVERLOADED]
    return LoadResult(
        requests=len(load.latencies),
        overloaded=overloaded,
        seconds=elapsed,
        cpu_seconds=cpu_seconds,
        settled=load.settled,
        refused=refused,
        failed=sum(count for status, count in load.statuses.items() if status >= 400) - refused - overloaded,
        failure=load.failure,
        p50_ms=latencies[len(latencies) // 2] * 1e3,
        p99_ms=latencies[len(latencies) * 99 // 100] * 1e3,
    )


if __name__ == "__main__":
    _, _url, _seconds, _connections, _kind, _events, _amount, _cost, _key = sys.argv
    _load = Load(_kind, int(_events), _amount, _cost)
    _result = uvloop.run(main(_url, float(_seconds), int(_connections), _load, _key))
    sys.stdout.write(msgspec.json.encode(_result).decode() + "\n")
