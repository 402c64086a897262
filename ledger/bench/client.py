"""The load as a program of its own, where wrk is not installed: lean, with connections that are kept.

    python -m ledger.bench.client URL SECONDS CONNECTIONS KIND EVENTS AMOUNT COST

It prints what was answered, as JSON, like `load.lua` does.
"""

import asyncio
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec
import uvloop

from ledger.bench import traffic

Answer = tuple[int, bytes]


class Connection:
    """A kept connection, one request at a time: no more of HTTP than the service answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self._reader = reader
        self._writer = writer
        self._host = host

    @classmethod
    async def open(cls, url: str) -> "Connection":
        """Connect."""
        where = urlsplit(url)
        assert where.hostname is not None
        return cls(*await asyncio.open_connection(where.hostname, where.port, limit=2**22), where.netloc)

    async def get(self, path: str) -> Answer:
        """Read a resource: the status, and the body."""
        return await self._send(f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())

    async def post(self, body: bytes) -> Answer:
        """Send events: the status, and the body."""
        head = (
            f"POST /v1/events HTTP/1.1\r\nHost: {self._host}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return await self._send(head.encode() + body)

    async def _send(self, request: bytes) -> Answer:
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return int(head[9:12]), await self._reader.readexactly(int(length))

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


class Load:
    """What the connections have in common: what to send next, and what was answered."""

    def __init__(self, kind: str, events: int, amount: str, cost: str) -> None:
        self.answered: Counter[int] = Counter()
        self.settled = 0
        self._ids = traffic.Ids()
        self._ready: deque[str] = deque()
        self._paths = traffic.read_paths()
        self._bodies: dict[str, Callable[[], bytes]] = {
            "costs": lambda: traffic.costs_body(self._ids, events),
            "trace": lambda: traffic.trace_body(self._ids, events),
            "holds": lambda: self._hold(amount, cost),
        }
        self._kind = kind

    def _hold(self, amount: str, cost: str) -> bytes:
        """Whoever is free settles a hold that was granted, or else asks for one."""
        if self._ready:
            return traffic.settle_body(self._ids, self._ready.popleft(), cost)
        return traffic.reserve_body(self._ids, amount)

    async def ask(self, connection: Connection) -> None:
        """Make one request."""
        if self._kind == "reads":
            status, _ = await connection.get(next(self._paths))
        else:
            status, body = await connection.post(self._bodies[self._kind]())
            if self._kind == "holds" and status == 201:
                receipt = msgspec.json.decode(body)["events"][0]
                if receipt["version"] == 1:
                    self._ready.append(receipt["stream_id"])
                else:
                    self.settled += 1
        self.answered[status] += 1


async def main(url: str, seconds: float, connections: int, load: Load) -> dict[str, float]:
    """Send from all connections for so long."""
    opened = [await Connection.open(url) for _ in range(connections)]
    began = time.monotonic()
    took: list[float] = []

    async def work(connection: Connection) -> None:
        while (sent := time.monotonic()) - began < seconds:
            await load.ask(connection)
            took.append(time.monotonic() - sent)

    async with asyncio.TaskGroup() as tasks:
        for connection in opened:
            tasks.create_task(work(connection))
    elapsed = time.monotonic() - began
    for connection in opened:
        connection.close()
    took.sort()
    refused = load.answered[402]
    return {
        "requests": load.answered.total(),
        "seconds": elapsed,
        "settled": load.settled,
        "refused": refused,
        "failed": sum(count for status, count in load.answered.items() if status >= 400) - refused,
        "p50_ms": took[len(took) // 2] * 1e3,
        "p99_ms": took[len(took) * 99 // 100] * 1e3,
    }


if __name__ == "__main__":
    _, _url, _seconds, _connections, _kind, _events, _amount, _cost = sys.argv
    _found = uvloop.run(main(_url, float(_seconds), int(_connections), Load(_kind, int(_events), _amount, _cost)))
    sys.stdout.write(f"RESULT {msgspec.json.encode(_found).decode()}\n")
