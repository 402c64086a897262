"""The wire between the service and PostgreSQL, which can be cut: at once, or after the server's answers were lost."""

import asyncio
from collections.abc import Callable
from typing import cast


class Proxy:
    """Passes bytes between whoever connects and a port that may change. Lives in the loop that opens it."""

    def __init__(self, target: Callable[[], int]) -> None:
        self.port = 0
        self.is_mute = False
        self._target = target
        self._pairs: set[_Near] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> "Proxy":
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Near(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()

    async def cut_answers(self, seconds: float) -> None:
        """Lose what the server says for so long, then cut: what was committed meanwhile, nobody hears of."""
        self.is_mute = True
        try:
            await asyncio.sleep(seconds)
        finally:
            self.cut()
            self.is_mute = False

    def cut(self) -> int:
        """Cut every connection, in the middle of whatever it carries; how many there were."""
        pairs = list(self._pairs)
        for near in pairs:
            near.end()
        return len(pairs)


class _Side(asyncio.Protocol):
    """One end of a pair. What cannot be written yet is not read at the other end."""

    transport: asyncio.Transport | None = None
    other: "_Side | None" = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are none by inheritance.
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self.end()

    def end(self) -> None:
        for side in (self, self.other):
            if side is not None and side.transport is not None:
                side.transport.abort()


class _Far(_Side):
    """The server's end."""

    def __init__(self, proxy: Proxy, near: "_Near") -> None:
        self.proxy = proxy
        self.other = near

    def data_received(self, data: bytes) -> None:
        if not self.proxy.is_mute:
            super().data_received(data)


class _Near(_Side):
    """The service's end. What it says before the server's end is open is kept until then."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.proxy._pairs.add(self)
        self.opening = asyncio.create_task(self._open())

    async def _open(self) -> None:
        assert self.transport is not None
        loop = asyncio.get_running_loop()
        try:
            _, far = await loop.create_connection(lambda: _Far(self.proxy, self), "127.0.0.1", self.proxy._target())
        except OSError:
            self.transport.abort()
            return
        self.other = far
        if self.transport.is_closing():
            far.end()
        for data in self._early:
            super().data_received(data)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._early.append(data)
        else:
            super().data_received(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.proxy._pairs.discard(self)
        super().connection_lost(error)
