"""Clients that write raw HTTP: invalid, incomplete or endless requests."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

from yarl import URL

ANSWER_SECONDS_MAX = 5.0
"""A generous limit: other clients get a response within this time, whatever hostile clients do."""


class Answer(NamedTuple):
    """What was received on a connection until it was closed or the response was complete."""

    status: int
    headers: dict[str, str]
    body: bytes
    head: list[str]
    """The status line and the header lines as they were sent."""

    @property
    def problem(self) -> str:
        """The slug of the problem document, whose status must be that of the status line."""
        assert self.headers["content-type"] == "application/problem+json", self
        document: dict[str, Any] = json.loads(self.body)
        assert document["status"] == self.status
        return str(document["type"]).removeprefix("/problems/")


class RawConnection:
    """A connection on which a test writes raw bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self, seconds: float = 10.0, *, has_body: bool = True) -> Answer:
        """Wait for a response with a Content-Length; the response to a HEAD has no body."""
        async with asyncio.timeout(seconds):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await self._reader.readexactly(int(headers["content-length"]) if has_body else 0)
        return Answer(int(first.split()[1]), headers, body, [first, *lines])

    async def is_closed(self, seconds: float) -> bool:
        """Return whether the service closes the connection in time; read what it still sends."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                with suppress(ConnectionError):
                    while await self._reader.read(65_536):
                        pass
                return True
        return False

    async def rest(self) -> tuple[int, bool]:
        """Read until the service closes the connection; return the bytes, and whether the last chunk ends the body."""
        received, end = 0, b""
        with suppress(ConnectionError):
            async with asyncio.timeout(20):
                while part := await self._reader.read(65_536):
                    received, end = received + len(part), (end + part)[-5:]
        return received, end == b"0\r\n\r\n"

    def close(self) -> None:
        self._writer.transport.abort()


@asynccontextmanager
async def raw_connections(url: str, number: int = 1) -> AsyncIterator[list[RawConnection]]:
    """Open `number` connections."""
    host_and_port = URL(url)
    connections: list[RawConnection] = []
    try:
        while len(connections) < number:
            connections.append(RawConnection(*await asyncio.open_connection(host_and_port.host, host_and_port.port)))
        yield connections
    finally:
        for connection in connections:
            connection.close()


async def response_to(url: str, *parts: bytes) -> Answer:
    """Send these bytes on a new connection; return the response."""
    async with raw_connections(url) as (connection,):
        with suppress(ConnectionError):
            for part in parts:
                await connection.send(part)
        return await connection.answer(has_body=not parts[0].startswith(b"HEAD "))


def request(method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    """Encode a request with these headers and Host."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode() + body


async def slowest_read(url: str, path: str, times: int) -> float:
    """Return the seconds of the slowest_read of `times` reads, each on a new connection."""
    worst = 0.0
    for _ in range(times):
        began = time.monotonic()
        answer = await response_to(url, request("GET", path, "Connection: close"))
        assert answer.status == 200, answer
        worst = max(worst, time.monotonic() - began)
    return worst
