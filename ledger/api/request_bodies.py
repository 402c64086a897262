"""Reading of request bodies: at most 16 MiB each, 128 MiB in total, and 30 s; gzip and deflate."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

from ledger.domain.errors import Malformed, Overloaded, TooLarge, UnsupportedMediaType
from ledger.log.decode import BODY_BYTES_MAX, BODY_TOO_LARGE

BODY_SECONDS_MAX = 30.0

SMALL_BODY_BYTES = 64 * 1024
"""Bodies up to this size are not counted: the limit of connections bounds them."""

TOTAL_BYTES_MAX = 128 * 1024 * 1024
"""Limit of all larger bodies whose requests are in progress; over it, further ones are refused."""

MEDIA = ("application/json", "application/x-ndjson")


class RequestBodies:
    """The request bodies in the memory of one process."""

    def __init__(self) -> None:
        self._bytes = 0

    @asynccontextmanager
    async def read(self, request: web.Request) -> AsyncIterator[bytes]:
        """Read the body of a request, and count its size inside the context.

        Raises:
            UnsupportedMediaType: the Content-Type is another than JSON or NDJSON.
            TooLarge: the body is larger than 16 MiB.
            Malformed: the body is incomplete, takes too long, or does not match its Content-Encoding.
            Overloaded: the bodies in progress are too large in total.
        """
        if request.headers.get("Content-Type") and request.content_type not in MEDIA:
            raise UnsupportedMediaType(f"{request.content_type} is not supported; send {' or '.join(MEDIA)}")
        if (request.content_length or 0) > BODY_BYTES_MAX:
            raise TooLarge(BODY_TOO_LARGE)
        counted = 0

        def count(part: bytes) -> None:
            nonlocal counted
            counted += len(part)
            self._bytes += len(part)
            if counted > BODY_BYTES_MAX:
                raise TooLarge(BODY_TOO_LARGE)
            if self._bytes > TOTAL_BYTES_MAX:
                raise Overloaded("too many large request bodies at the same time; retry in 1 s")

        try:
            yield await _read(request, count)
        finally:
            self._bytes -= counted


async def _read(request: web.Request, count: Callable[[bytes], None]) -> bytes:
    length, content = request.content_length, request.content
    is_small = length is not None and length <= SMALL_BODY_BYTES and "Content-Encoding" not in request.headers
    if is_small and content.is_eof() and content.exception() is None:
        # The whole body was received together with the headers.
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
        raise Malformed(f"the body was not received within {BODY_SECONDS_MAX:.0f} s") from None
    except RequestPayloadError:
        raise Malformed("the body is incomplete or does not match its Content-Encoding") from None
