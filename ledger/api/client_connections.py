"""Limits of client connections: how many may be open, time for request headers, time for slow readers."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from aiohttp import web

from ledger.api.connection_limits import ConnectionLimits
from ledger.api.problem_handler import ProblemHandler
from ledger.api.rejected_connection import RejectedConnection
from ledger.api.telemetry import Telemetry

logger = logging.getLogger(__name__)

KEEPALIVE_SECONDS = 75.0
"""An idle connection is closed after this time."""

HEAD_SECONDS_MAX = 20.0
"""Timeout for the request line and headers, from their first byte."""

READ_BYTES_MIN = 64 * 1024
READ_SECONDS_MAX = 30.0
"""Slow-reader timeout: a client that reads less than 64 KiB in this time is disconnected, since unread output is
buffered in memory."""

EARLY_BYTES_MAX = 64 * 1024
"""A client may send this much before its previous request is answered; beyond that, reading is paused."""


class FastPath(Protocol):
    """Handles some requests without aiohttp (see `ledger.api.fast_path`)."""

    def take(self, data: bytes, connection: "ClientConnection") -> bool:
        """Take a request if possible; `connection.write_response` is then called once."""


def connection_factory(
    server: web.Server, limits: ConnectionLimits, telemetry: Telemetry, fast_paths: Sequence[FastPath]
) -> Callable[[], asyncio.Protocol]:
    """Return a function that makes the protocol of each new connection.

    Args:
        server: the aiohttp server.
        limits: how many may be open; further ones are rejected before a parser or task is created.
        telemetry: counts the connections.
        fast_paths: each handles some requests.

    Returns:
        The function, for `loop.create_server`.
    """
    loop = asyncio.get_running_loop()

    def make_protocol() -> asyncio.Protocol:
        if not limits.make_room():
            telemetry.count_rejected_connection()
            return RejectedConnection()
        connection = ClientConnection(
            server,
            telemetry,
            limits,
            fast_paths,
            loop=loop,
            keepalive_timeout=KEEPALIVE_SECONDS,
            access_log=None,
            # Broken data would be logged with a traceback, also without a key: see `content_codings.py`.
            auto_decompress=False,
        )
        limits.add(connection)
        return connection

    return make_protocol


class ClientConnection(ProblemHandler):
    """The protocol of a connection: aiohttp's with timeouts, and the fast paths beside it."""

    __slots__ = (
        "_early",
        "_fast_paths",
        "_fast_response",
        "_fast_task",
        "_head_timer",
        "_is_at_boundary",
        "_limits",
        "_read_timer",
        "_telemetry",
        "_unread_bytes",
    )

    def __init__(
        self,
        server: web.Server,
        telemetry: Telemetry,
        limits: ConnectionLimits,
        fast_paths: Sequence[FastPath],
        **options: Any,
    ) -> None:
        super().__init__(server, **options)
        self._telemetry = telemetry
        self._limits = limits
        self._fast_paths = fast_paths
        # Pending while the fast path handles a request; what the client sends meanwhile is kept in `_early`.
        self._fast_response: asyncio.Future[None] | None = None
        self._fast_task: asyncio.Task[Any] | None = None
        self._early = bytearray()
        # False if aiohttp's parser may hold the start of a request: then the next bytes belong to that request.
        self._is_at_boundary = True
        self._head_timer: asyncio.TimerHandle | None = None
        self._read_timer: asyncio.TimerHandle | None = None
        self._unread_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection as open."""
        self._telemetry.count_connection(1)
        super().connection_made(transport)
        if self._force_close:
            self.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Count the connection as closed."""
        self._telemetry.count_connection(-1)
        self._limits.remove(self)
        self._cancel_head_timer()
        self._cancel_read_timer()
        if self._fast_task is not None:
            self._fast_task.cancel()
        super().connection_lost(exc)

    def mark_authenticated(self, key: str) -> None:
        """Count the connection for the key of a valid request; it is no longer closed first if others need room.

        Raises:
            Overloaded: the key has its share of the connections already.
        """
        self._limits.authenticate(self, key)

    def cancel_when_lost(self, task: "asyncio.Task[Any]") -> None:
        """Cancel the task that handles the request if the client disconnects before the response."""
        self._fast_task = task

    @property
    def has_sent_request(self) -> bool:
        """Whether the headers of a request were received completely."""
        return self._request_count > 0

    def idle_seconds(self) -> float | None:
        """Return the time since the last response, or since the opening; None while a request is in progress."""
        if self.transport is None or self._request_in_progress or self._messages or self._fast_response is not None:
            return None
        return self._loop.time() + KEEPALIVE_SECONDS - self._next_keepalive_close_time

    def abort(self) -> None:
        """Close the connection at once, or as soon as it is made."""
        self._force_close = True
        if self.transport is not None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Handle the data by the fast path if possible, or parse it.

        The timeout for the head of a request starts with its first byte. `_waiter` is pending while aiohttp waits for
        the rest of a head.
        """
        if self._fast_response is not None:
            self._early += data
            if len(self._early) > EARLY_BYTES_MAX and self.transport is not None:
                self.transport.pause_reading()
            return
        if self._is_at_boundary and self._is_idle() and self._take_fast(data):
            return
        requests = self._request_count
        super().data_received(data)
        if data:  # aiohttp also calls this without any, to parse what it has kept back.
            self._is_at_boundary = self._request_count == requests + 1 and _is_whole(data, self._messages[-1][0])
        if self._waiter is None or self._waiter.done():
            self._cancel_head_timer()
        elif self._head_timer is None:
            self._head_timer = self._loop.call_later(HEAD_SECONDS_MAX, self.force_close)

    def _is_idle(self) -> bool:
        """Whether aiohttp waits for the first byte of a request, with nothing else to do."""
        is_waiting = self._waiter is not None and not self._waiter.done()
        is_free = not (self._messages or self._paused or self._close or self._force_close)
        return is_waiting and self._head_timer is None and is_free

    def _take_fast(self, data: bytes) -> bool:
        self._fast_response = self._loop.create_future()
        if any(fast_path.take(data, self) for fast_path in self._fast_paths):
            # aiohttp must not close the connection as idle meanwhile.
            self._next_keepalive_close_time = self._loop.time() + KEEPALIVE_SECONDS
            return True
        self._fast_response = None
        return False

    def write_response(self, response: bytes) -> None:
        """Write the response of the fast path; then handle what has arrived since."""
        fast_response, self._fast_response, self._fast_task = self._fast_response, None, None
        if fast_response is not None and not fast_response.done():
            fast_response.set_result(None)
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        transport.write(response)
        self._next_keepalive_close_time = self._loop.time() + KEEPALIVE_SECONDS
        if self._early:
            early, self._early = bytes(self._early), bytearray()
            transport.resume_reading()
            self.data_received(early)

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 (the signature is aiohttp's)
        """Wait for the fast path to respond before the connection is closed."""
        if self._fast_response is not None:
            await asyncio.wait([self._fast_response], timeout=timeout)
        await super().shutdown(timeout)

    def pause_writing(self) -> None:
        """Start the slow-reader timeout: the write buffer is full."""
        super().pause_writing()
        self._start_read_timer()

    def resume_writing(self) -> None:
        """End the slow-reader timeout: the client has read nearly everything."""
        super().resume_writing()
        self._cancel_read_timer()

    def _start_read_timer(self) -> None:
        assert self.transport is not None
        self._unread_bytes = self.transport.get_write_buffer_size()
        self._read_timer = self._loop.call_later(READ_SECONDS_MAX, self._check_reading)

    def _check_reading(self) -> None:
        transport = self.transport
        if transport is None:
            return
        if transport.get_write_buffer_size() > self._unread_bytes - READ_BYTES_MIN:
            logger.info("disconnected a client that does not read its response")
            transport.abort()
        else:
            self._start_read_timer()

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _cancel_read_timer(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None


def _is_whole(data: bytes, message: Any) -> bool:
    """Whether data in which one request was parsed ends where the request ends.

    If data begins with a letter, the first empty line in it ends the head, whatever was received before.
    """
    headers = getattr(message, "headers", {})  # An error has none; it closes the connection.
    length = data.find(b"\r\n\r\n") + 4 + int(headers.get("Content-Length", 0))
    return data[:1].isalpha() and len(data) == length and "Transfer-Encoding" not in headers
