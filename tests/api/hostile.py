"""Clients that speak HTTP by hand, badly or never to the end."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

from yarl import URL

ANSWER_SECONDS_MAX = 5.0
"""Generous: everybody else is answered within this, whatever the hostile do."""


class Answer(NamedTuple):
    """What came back on a connection until it was closed, or the answer was whole."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> str:
        """Which problem it is, of a document that says the same as the status line."""
        assert self.headers["content-type"] == "application/problem+json", self
        document: dict[str, Any] = json.loads(self.body)
        assert document["status"] == self.status
        return str(document["type"]).removeprefix("/problems/")


class Wire:
    """A connection whose bytes are written by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self, seconds: float = 10.0, *, has_body: bool = True) -> Answer:
        """Wait for an answer that says its length; that to a HEAD has no body even so."""
        async with asyncio.timeout(seconds):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await self._reader.readexactly(int(headers["content-length"]) if has_body else 0)
        return Answer(int(first.split()[1]), headers, body)

    async def is_closed(self, seconds: float) -> bool:
        """Wait until the service closes the connection; whatever it still says is read."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                with suppress(ConnectionError):
                    while await self._reader.read(65_536):
                        pass
                return True
        return False

    def close(self) -> None:
        self._writer.transport.abort()


@asynccontextmanager
async def wired(url: str, number: int = 1) -> AsyncIterator[list[Wire]]:
    """So many connections."""
    place = URL(url)
    wires: list[Wire] = []
    try:
        while len(wires) < number:
            wires.append(Wire(*await asyncio.open_connection(place.host, place.port)))
        yield wires
    finally:
        for wire in wires:
            wire.close()


async def asked(url: str, *parts: bytes) -> Answer:
    """What a connection of its own is answered to these bytes."""
    async with wired(url) as (wire,):
        with suppress(ConnectionError):
            for part in parts:
                await wire.send(part)
        return await wire.answer(has_body=not parts[0].startswith(b"HEAD "))


def request(method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    """A request as bytes; of headers only those given, and Host."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: ledger", *headers, "", ""]).encode() + body


async def slowest(url: str, path: str, times: int) -> float:
    """Seconds of the slowest of so many reads, each on a connection of its own."""
    worst = 0.0
    for _ in range(times):
        began = time.monotonic()
        answer = await asked(url, request("GET", path, "Connection: close"))
        assert answer.status == 200, answer
        worst = max(worst, time.monotonic() - began)
    return worst
