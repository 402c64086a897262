"""Connections over the limit: rejected with 503, without a parser or a task."""

import asyncio
from typing import cast

import msgspec

from ledger.api import problems
from ledger.domain.errors import Overloaded

REJECTED_SECONDS = 1.0
"""A rejected client has this time to read the response."""


class RejectedConnection(asyncio.Protocol):
    """A connection over the limit: it gets 503 and is closed, without a parser or a task."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Respond at once, without reading the request."""
        transport = cast(asyncio.Transport, transport)
        body = msgspec.json.encode(problems.document(Overloaded("too many open connections; retry in 1 s")))
        transport.write(
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 1\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        # If the socket were closed with unread input, the kernel would send a reset, and the client might lose the
        # response.
        transport.write_eof()
        asyncio.get_running_loop().call_later(REJECTED_SECONDS, transport.abort)
