"""Reads that compete with appends, as a separate process: one GET repeated on many connections.

    python -m ledger.bench.read_load URL CONNECTIONS PATH ACCEPT KEY RETRY_SECONDS ABANDONED

Each request has a connection of its own, whose response is read to its end and thrown away. After a 503 the client
waits for RETRY_SECONDS, and the first time for a random part of it, so that not all come back together. ABANDONED is 1
if a connection is closed as soon as its request is sent; then CONNECTIONS requests are sent at once each second. The
load ends with SIGTERM: all connections are closed, whatever is in progress. It prints a line once every connection is
open, and at the end the number of responses by status as JSON.
"""

import asyncio
import random
import resource
import signal
import sys
from collections import Counter
from urllib.parse import urlsplit

import msgspec
import uvloop

SECONDS_MAX = 120
"""The load ends by itself after this time, in case that the process which started it is gone."""

OVERLOADED = 503
ABANDONED_INTERVAL_SECONDS = 1.0
OTHER_FILES = 64
READ_BYTES = 256 * 1024

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class ReadLoad:
    """A GET that is sent again and again, and the statuses of the responses."""

    def __init__(self, url: str, path: str, accept: str, key: str, retry_seconds: float) -> None:
        """Prepare a load.

        Args:
            url: of the API, without a path.
            path: to read.
            accept: the media type to ask for.
            key: the API key.
            retry_seconds: pause of a client after a 503.
        """
        self._retry_seconds = retry_seconds
        parts = urlsplit(url)
        self.statuses: Counter[int] = Counter()
        self._address = parts.hostname, parts.port
        self._request = (
            f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {key}\r\nAccept: {accept}\r\n"
            "Connection: close\r\n\r\n"
        ).encode()

    async def send(self) -> Connection:
        """Send the request on a new connection."""
        reader, writer = await asyncio.open_connection(*self._address)
        writer.write(self._request)
        return reader, writer

    async def read_repeatedly(self, connection: Connection) -> None:
        """Read the response to its end, then send the request again, without end."""
        pause = random.uniform(0, self._retry_seconds)  # noqa: S311
        while True:
            reader, writer = connection
            try:
                status = int((await reader.readuntil(b"\r\n\r\n"))[9:12])
                self.statuses[status] += 1
                while await reader.read(READ_BYTES):
                    pass
            finally:
                writer.transport.abort()
            if status == OVERLOADED:
                await asyncio.sleep(pause)
                pause = self._retry_seconds
            connection = await self.send()

    async def abandon_repeatedly(self, connections: list[Connection]) -> None:
        """Close the connections, whose requests have just been sent; send as many requests at intervals."""
        while True:
            for _, writer in connections:
                writer.close()
            await asyncio.sleep(ABANDONED_INTERVAL_SECONDS)
            connections = [await self.send() for _ in connections]


async def main(load: ReadLoad, connection_count: int, *, is_abandoned: bool) -> dict[int, int]:
    """Put a load on the API until SIGTERM.

    Args:
        load: what to read.
        connection_count: connections open at the same time.
        is_abandoned: close each connection as soon as its request is sent.

    Returns:
        the number of responses by status.

    Raises:
        OSError: a connection was refused or lost.
    """
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    connections = [await load.send() for _ in range(connection_count)]
    clients = [load.abandon_repeatedly(connections)] if is_abandoned else map(load.read_repeatedly, connections)
    tasks = [asyncio.create_task(client) for client in clients]
    sys.stdout.write("reading\n")
    sys.stdout.flush()
    stop = asyncio.create_task(stopped.wait())
    done, pending = await asyncio.wait([stop, *tasks], timeout=SECONDS_MAX, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    # A client ends only with an error, which this raises.
    await asyncio.gather(*done)
    return dict(load.statuses)


if __name__ == "__main__":
    _, _url, _connections, _path, _accept, _key, _retry_seconds, _is_abandoned = sys.argv
    _hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(_connections) + OTHER_FILES, _hard_limit))
    _load = ReadLoad(_url, _path, _accept, _key, float(_retry_seconds))
    _statuses = uvloop.run(main(_load, int(_connections), is_abandoned=_is_abandoned == "1"))
    sys.stdout.write(msgspec.json.encode(_statuses).decode() + "\n")
