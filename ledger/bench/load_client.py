"""The load generator of the benchmarks, as a separate process: closed-loop HTTP on many connections.

    python -m ledger.bench.load_client URL SECONDS CONNECTIONS KIND EVENTS AMOUNT COST

It prints a `LoadResult` as JSON. Each connection sends its next request as soon as the previous one is answered, from
callbacks and not from a task: the less processor time the load takes, the more is left for what is measured.
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


class LoadResult(msgspec.Struct):
    """The answers to a load.

    `settled` and `refused` count holds; `failed` counts error responses other than refused holds, and `failure` is
    the first of them. `cpu_seconds` is the processor time of the load generator after its start.
    """

    requests: int
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
            kind: `costs`, `trace`, `holds` or `reads`.
            events: per request, for `costs` and `trace`.
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
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sent_at = time.perf_counter()

        def on_response(status: int, body: bytes) -> None:
            nonlocal sent_at
            now = time.perf_counter()
            self.latencies.append(now - sent_at)
            self._record(status, body)
            if now < deadline:
                sent_at = now
                connection.send(self._next_request(connection), on_response, done.set_exception)
            else:
                done.set_result(None)

        connection.send(self._next_request(connection), on_response, done.set_exception)
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

    def _hold_body(self) -> bytes:
        """Return the settlement of a granted hold if there is one, else a new hold."""
        if self._granted_holds:
            return workload.settle_body(self._new_id, self._granted_holds.popleft(), self._cost)
        return workload.reserve_body(self._new_id, self._amount)


async def main(url: str, seconds: float, connection_count: int, load: Load) -> LoadResult:
    """Put a load on the API.

    Args:
        url: of the API, without a path.
        seconds: how long to send.
        connection_count: connections open at the same time.
        load: what to send.

    Returns:
        what was answered.

    Raises:
        ConnectionError: a connection was lost.
        TimeoutError: responses were still missing long after the end.
    """
    connections = [await HttpConnection.open(url) for _ in range(connection_count)]
    began, cpu_began = time.perf_counter(), time.process_time()
    await load.run(connections, seconds)
    elapsed, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    for connection in connections:
        connection.close()
    latencies, refused = sorted(load.latencies), load.statuses[BUDGET_EXCEEDED]
    return LoadResult(
        requests=len(latencies),
        seconds=elapsed,
        cpu_seconds=cpu_seconds,
        settled=load.settled,
        refused=refused,
        failed=sum(count for status, count in load.statuses.items() if status >= 400) - refused,
        failure=load.failure,
        p50_ms=latencies[len(latencies) // 2] * 1e3,
        p99_ms=latencies[len(latencies) * 99 // 100] * 1e3,
    )


if __name__ == "__main__":
    _, _url, _seconds, _connections, _kind, _events, _amount, _cost = sys.argv
    _load = Load(_kind, int(_events), _amount, _cost)
    _result = uvloop.run(main(_url, float(_seconds), int(_connections), _load))
    sys.stdout.write(msgspec.json.encode(_result).decode() + "\n")
