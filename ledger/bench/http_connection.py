"""A minimal HTTP/1.1 keep-alive client connection that uses little processor time."""

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

Response = tuple[int, bytes]

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"Content-Length: "


class HttpConnection(asyncio.Protocol):
    """A connection with at most one request in flight.

    It understands only the HTTP that this service sends: every response has a `Content-Length`, none is chunked.
    """

    def __init__(self, host: str, key: str = "") -> None:
        self._headers = f"Host: {host}\r\n" + (f"Authorization: Bearer {key}\r\n" if key else "")
        self._transport: Any = None
        self._received = b""
        self._on_response: Callable[[int, bytes], None] | None = None
        self._on_loss: Callable[[ConnectionError], None] | None = None

    @classmethod
    async def open(cls, url: str, key: str = "") -> "HttpConnection":
        """Connect to the host and port of a URL; every request carries the key, if there is one."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: cls(parts.netloc, key), parts.hostname, parts.port)
        return connection

    def get_request(self, path: str) -> bytes:
        """Return a GET request as bytes."""
        return f"GET {path} HTTP/1.1\r\n{self._headers}\r\n".encode()

    def post_request(self, body: bytes) -> bytes:
        """Return a request as bytes that posts events."""
        head = (
            f"POST /v1/events HTTP/1.1\r\n{self._headers}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def send(
        self,
        request: bytes,
        on_response: Callable[[int, bytes], None],
        on_loss: Callable[[ConnectionError], None],
    ) -> None:
        """Send a request.

        Args:
            request: the whole request.
            on_response: called with the status and the body.
            on_loss: called instead if the connection is lost first.
        """
        self._on_response, self._on_loss = on_response, on_loss
        self._transport.write(request)

    async def fetch(self, request: bytes) -> Response:
        """Send a request; return the status and the body.

        Raises:
            ConnectionError: the connection was lost.
        """
        response: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self.send(request, lambda status, body: response.set_result((status, body)), response.set_exception)
        return await response

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Call `on_response` once the response is complete; it may send the next request."""
        received = self._received + data if self._received else data
        head_end = received.find(_HEAD_END)
        if head_end >= 0:
            length_start = received.index(_LENGTH) + len(_LENGTH)
            body_start = head_end + len(_HEAD_END)
            body_end = body_start + int(received[length_start : received.index(b"\r", length_start)])
            if len(received) >= body_end:
                self._received = b""
                on_response, self._on_response = self._on_response, None
                assert on_response is not None
                on_response(int(received[9:12]), received[body_start:body_end])
                return
        self._received = received

    def connection_lost(self, error: Exception | None) -> None:
        """Call `on_loss` if a response is outstanding."""
        if self._on_response is not None and self._on_loss is not None:
            self._on_response = None
            self._on_loss(ConnectionError(f"the connection was lost: {error or 'closed by the server'}"))
