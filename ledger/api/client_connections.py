"""Client connections: their number, and time limits for request heads and for reading answers."""

import asyncio
import logging
import resource
from collections.abc import Callable
from typing import Any, cast

import msgspec
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from ledger.api import problems
from ledger.api.telemetry import Telemetry
from ledger.domain.errors import LedgerError, Malformed, Overloaded

logger = logging.getLogger(__name__)

KEEPALIVE_SECONDS = 75.0
"""A connection on which nothing is asked is closed after so long."""

HEAD_SECONDS_MAX = 20.0
"""The first line and the headers of a request come within this, from their first byte on."""

TAKEN_BYTES_MIN = 64 * 1024
TAKING_SECONDS_MAX = 30.0
"""Who takes no 64 KiB of an answer in so long is dropped: what is not taken lies in memory."""

REJECTED_SECONDS = 1.0
"""Who is turned away has so long to read why."""

OTHER_FILES = 256
"""Open files that are no client's: the database's connections, listeners, logs."""


def raise_open_file_limit(wanted: int) -> int:
    """As many connections as wanted, or as many as the system's limit of open files leaves."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    possible = wanted if soft == resource.RLIM_INFINITY else min(wanted, max(1, soft - OTHER_FILES))
    if possible < wanted:
        logger.warning("open files are limited to %s: at most %s connections are taken, not %s", soft, possible, wanted)
    return possible


def connection_factory(
    server: web.Server, connections_max: int, telemetry: Telemetry
) -> Callable[[], asyncio.Protocol]:
    """What makes the protocol of each new connection: a client's, or past the limit one that says so and closes."""
    loop = asyncio.get_running_loop()

    def take() -> asyncio.Protocol:
        if telemetry.connections >= connections_max:
            telemetry.count_rejected_connection()
            return RejectedConnection()
        return Connection(server, telemetry, loop=loop, keepalive_timeout=KEEPALIVE_SECONDS, access_log=None)

    return take


class RejectedConnection(asyncio.Protocol):
    """A connection past the limit: it costs next to nothing, is told to come again, and is closed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say why, without waiting for what is asked."""
        transport = cast(asyncio.Transport, transport)
        body = msgspec.json.encode(problems.document(Overloaded("too many connections are open; try again")))
        transport.write(
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 1\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        # Closed at once with something unread, the system would reset it, and the answer would be lost on the way.
        transport.write_eof()
        asyncio.get_running_loop().call_later(REJECTED_SECONDS, transport.abort)


class Connection(RequestHandler):
    """aiohttp's side of a connection, with bounds of time, and errors before any route as problem documents."""

    __slots__ = ("_head_timer", "_taking_timer", "_telemetry", "_untaken")

    def __init__(self, server: web.Server, telemetry: Telemetry, **given: Any) -> None:
        super().__init__(server, **given)
        self._telemetry = telemetry
        self._head_timer: asyncio.TimerHandle | None = None
        self._taking_timer: asyncio.TimerHandle | None = None
        self._untaken = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it."""
        self._telemetry.count_connection(1)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Count it no more."""
        self._telemetry.count_connection(-1)
        self._end_head_timer()
        self._end_taking_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; a request's head that has begun must be whole in time, however steadily it trickles."""
        super().data_received(data)
        if self._waiter is None or self._waiter.done():
            self._end_head_timer()
        elif self._head_timer is None:
            self._head_timer = self._loop.call_later(HEAD_SECONDS_MAX, self.force_close)

    def pause_writing(self) -> None:
        """The client takes less than is written: see from now on that it takes something."""
        super().pause_writing()
        self._watch_taking()

    def resume_writing(self) -> None:
        """It has taken nearly all."""
        super().resume_writing()
        self._end_taking_timer()

    def _watch_taking(self) -> None:
        assert self.transport is not None
        self._untaken = self.transport.get_write_buffer_size()
        self._taking_timer = self._loop.call_later(TAKING_SECONDS_MAX, self._look_at_taking)

    def _look_at_taking(self) -> None:
        transport = self.transport
        if transport is None:
            return
        if transport.get_write_buffer_size() > self._untaken - TAKEN_BYTES_MIN:
            logger.info("a client that does not read its answer was dropped")
            transport.abort()
        else:
            self._watch_taking()

    def _end_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end_taking_timer(self) -> None:
        if self._taking_timer is not None:
            self._taking_timer.cancel()
            self._taking_timer = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what aiohttp cannot read, or a bug outside every route; neither is logged or shown as it was sent.

        aiohttp's own message quotes the line at fault, which may be the one with the key.
        """
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun; no other can be sent")
        if status < 500:
            logger.info("a request could not be read: %s", type(exc).__name__)
            error: LedgerError = Malformed(
                "this is no HTTP request that can be read, or its address or a header is longer than 8 KiB"
            )
        else:
            logger.error("a request failed outside every route: %s", type(exc).__name__)
            error = LedgerError("the service failed on this request; its log says why")
        answer = problems.response(error)
        answer.force_close()
        return answer
