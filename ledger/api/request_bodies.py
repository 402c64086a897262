"""Reading bodies: in bounded time, and of all requests together in bounded memory."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

from ledger.domain.errors import Malformed, Overloaded, TooLarge, UnsupportedMediaType
from ledger.log.decode import BODY_BYTES_MAX, BODY_TOO_LARGE

BODY_SECONDS_MAX = 30.0

SMALL_BODY_BYTES = 64 * 1024
"""Bodies up to this size are not counted: connections bound them."""

TOGETHER_BYTES_MAX = 128 * 1024 * 1024
"""Larger bodies that are being read or answered, all together; past it they are refused until some are done."""

MEDIA = ("application/json", "application/x-ndjson")


class RequestBodies:
    """The bodies of one process."""

    def __init__(self) -> None:
        self._bytes = 0

    @asynccontextmanager
    async def read(self, request: web.Request) -> AsyncIterator[bytes]:
        """Read the body of a request, and count it while inside.

        Raises:
            UnsupportedMediaType, TooLarge: of what it says to be.
            Malformed: it is cut off, does not come in time, or is not what its encoding says.
            Overloaded: too much is being read.
        """
        if request.headers.get("Content-Type") and request.content_type not in MEDIA:
            raise UnsupportedMediaType(f"{request.content_type} is not understood; send {' or '.join(MEDIA)}")
        if (request.content_length or 0) > BODY_BYTES_MAX:
            raise TooLarge(BODY_TOO_LARGE)
        counted = 0

        def count(part: bytes) -> None:
            nonlocal counted
            counted += len(part)
            self._bytes += len(part)
            if counted > BODY_BYTES_MAX:
                raise TooLarge(BODY_TOO_LARGE)
            if self._bytes > TOGETHER_BYTES_MAX:
                raise Overloaded("too many large bodies are being read; send this again in a second")

        try:
            yield await _read(request, count)
        finally:
            self._bytes -= counted


async def _read(request: web.Request, count: Callable[[bytes], None]) -> bytes:
    length, content = request.content_length, request.content
    is_small = length is not None and length <= SMALL_BODY_BYTES and "Content-Encoding" not in request.headers
    if is_small and content.is_eof() and content.exception() is None:
        # All of it came with the head of the request: there is nothing to wait for.
        return content.read_nowait()
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            if is_small:
                return await request.read()
            parts = []
            async for part in request.content.iter_any():
                count(part)
                parts.append(part)
            return b"".join(parts)
    except TimeoutError:
        raise Malformed(f"the body did not come within {BODY_SECONDS_MAX:.0f} seconds") from None
    except RequestPayloadError:
        raise Malformed("the body is cut off, or not what its Content-Encoding says") from None
