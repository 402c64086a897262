"""A TCP proxy before PostgreSQL that cuts connections, at once or after losing responses."""

import asyncio
from collections.abc import Callable
from typing import cast


class Proxy:
    """Forwards bytes between its clients and a port that may change. It runs in the event loop that opens it."""

    def __init__(self, target_port: Callable[[], int]) -> None:
        self.port = 0
        self.drops_responses = False
        self._target_port = target_port
        self._connections: set[_ClientSide] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> "Proxy":
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _ClientSide(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()

    async def cut_responses(self, seconds: float) -> None:
        """Drop what the server sends for `seconds`, then cut: the service cannot know what was committed meanwhile."""
        self.drops_responses = True
        try:
            await asyncio.sleep(seconds)
        finally:
            self.cut()
            self.drops_responses = False

    def cut(self) -> int:
        """Cut every connection immediately, even in the middle of a message; return how many there were."""
        connections = list(self._connections)
        for connection in connections:
            connection.abort()
        return len(connections)


class _Side(asyncio.Protocol):
    """One side of a connection. While it cannot write, the other side does not read."""

    transport: asyncio.Transport | None = None
    other: "_Side | None" = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, since uvloop's transports do not inherit from asyncio.Transport.
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
        self.abort()

    def abort(self) -> None:
        for side in (self, self.other):
            if side is not None and side.transport is not None:
                side.transport.abort()


class _ServerSide(_Side):
    """The side of PostgreSQL."""

    def __init__(self, proxy: Proxy, client_side: "_ClientSide") -> None:
        self.proxy = proxy
        self.other = client_side

    def data_received(self, data: bytes) -> None:
        if not self.proxy.drops_responses:
            super().data_received(data)


class _ClientSide(_Side):
    """The side of the service. What arrives before the server side is connected is buffered."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self._buffered: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.proxy._connections.add(self)
        self.connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        assert self.transport is not None
        loop, port = asyncio.get_running_loop(), self.proxy._target_port()
        try:
            _, server_side = await loop.create_connection(lambda: _ServerSide(self.proxy, self), "127.0.0.1", port)
        except OSError:
            self.transport.abort()
            return
        self.other = server_side
        if self.transport.is_closing():
            server_side.abort()
        for data in self._buffered:
            super().data_received(data)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._buffered.append(data)
        else:
            super().data_received(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.proxy._connections.discard(self)
        super().connection_lost(error)
