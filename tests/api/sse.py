"""A client of Server-Sent Events: the part of WHATWG HTML, section 9.2.6, that the service uses."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

PATH = "/v1/events/stream"
SECONDS_MAX = 20.0


class Stream:
    """An open response; reads fail after a timeout. `last` is the id to resume after."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer
        self.last = -1
        self._buffer = b""

    async def block(self) -> dict[str, str] | None:
        """Return the fields up to the next empty line, a comment under an empty name; None at the end."""
        async with asyncio.timeout(SECONDS_MAX):
            while b"\n\n" not in self._buffer:
                received = await self.answer.content.readany()
                if not received:
                    assert not self._buffer, "the answer ended within an event"
                    return None
                self._buffer += received
        block, self._buffer = self._buffer.split(b"\n\n", 1)
        lines = [line.partition(": ") for line in block.decode().split("\n")]
        return {name: value for name, _, value in lines}

    async def event(self) -> dict[str, Any] | None:
        """Return the next event, without comments; None at the end. Its fields must agree with its data."""
        while (block := await self.block()) == {"": ""}:
            pass
        if block is None:
            return None
        assert list(block) == ["id", "event", "data"]
        event: dict[str, Any] = json.loads(block["data"])
        assert (int(block["id"]), block["event"]) == (event["position"], event["type"])
        self.last = event["position"]
        return event

    async def take(self, count: int) -> list[dict[str, Any]]:
        """Return the next `count` events."""
        events = [await self.event() for _ in range(count)]
        assert None not in events, "the answer ended early"
        return [event for event in events if event is not None]

    async def positions(self, count: int) -> list[int]:
        """Return the positions of the next `count` events."""
        return [event["position"] for event in await self.take(count)]

    async def heartbeat(self) -> None:
        """Read the next block, which must be a comment."""
        assert await self.block() == {"": ""}


@asynccontextmanager
async def open_stream(
    client: aiohttp.ClientSession, *, last: int | str | None = None, **parameters: Any
) -> AsyncIterator[Stream]:
    """Open an event stream, whose first block has the id to resume after and the reconnection delay."""
    headers = {"Last-Event-ID": str(last)} if last is not None else {}
    async with client.get(PATH, params=parameters, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        stream = Stream(answer)
        block = await stream.block()
        assert block is not None
        assert list(block) == ["retry", "id"]
        assert 1000 <= int(block["retry"]) < 3000
        stream.last = int(block["id"])
        yield stream
