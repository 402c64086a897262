"""Reading of request bodies: at most 16 MiB and 30 s each, 128 MiB in total, a share for each key."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import hdrs, web
from aiohttp.web_protocol import RequestPayloadError

from ledger.api.content_codings import Decompressor, coding_of
from ledger.domain.errors import Malformed, Overloaded, TooLarge, UnsupportedMediaType
from ledger.fair_share import FairShare
from ledger.log.request_body import BODY_BYTES_MAX, BODY_TOO_LARGE
from ledger.time_slices import in_slices

BODY_SECONDS_MAX = 30.0

SMALL_BODY_BYTES = 64 * 1024
"""Bodies up to this size are not counted: the limit of connections and its share for each key bound them."""

TOTAL_BYTES_MAX = 128 * 1024 * 1024
"""Limit of all larger bodies whose requests are in progress; a request beyond the share of its key is refused."""

MEDIA = ("application/json", "application/x-ndjson")


class RequestBodies:
    """The request bodies in the memory of one process."""

    def __init__(self) -> None:
        self._share = FairShare(TOTAL_BYTES_MAX)

    @asynccontextmanager
    async def read(self, request: web.Request, key: str) -> AsyncIterator[bytes]:
        """Read the body of a request, and count its size inside the context.

        Args:
            request: the request.
            key: the name of the API key that it was sent with.

        Yields:
            The body, decompressed.

        Raises:
            UnsupportedMediaType: the Content-Type is neither JSON nor NDJSON, or the content coding is unknown.
            TooLarge: the body is larger than 16 MiB.
            Malformed: the body is incomplete, takes too long, or does not match its Content-Encoding.
            Overloaded: the bodies of the key that are in progress exceed its share of the total.
        """
        if request.headers.get("Content-Type") and request.content_type not in MEDIA:
            raise UnsupportedMediaType(f"{request.content_type} is not supported; send {' or '.join(MEDIA)}")
        if request.headers.get(hdrs.TRANSFER_ENCODING, "chunked").strip().lower() != "chunked":
            # aiohttp reads such a body as if it were only chunked.
            raise Malformed("the only transfer coding that is supported is chunked")
        coding = coding_of(request.headers.getall("Content-Encoding", ()))
        if (request.content_length or 0) > BODY_BYTES_MAX:
            raise TooLarge(BODY_TOO_LARGE)
        received = held = 0

        def count(part: bytes) -> None:
            nonlocal received, held
            received += len(part)
            if received > BODY_BYTES_MAX:
                raise TooLarge(BODY_TOO_LARGE)
            if not self._share.try_take(key, len(part)):
                mebibytes = self._share.held(key) / 1024 / 1024
                raise Overloaded(f"{mebibytes:.0f} MiB of this key's request bodies are in progress; retry in 1 s")
            held = received

        try:
            yield await _read(request, coding, count)
        finally:
            if held:
                self._share.give_back(key, held)


async def _read(request: web.Request, coding: str, count: Callable[[bytes], None]) -> bytes:
    length, content = request.content_length, request.content
    is_small = length is not None and length <= SMALL_BODY_BYTES and coding == "identity"
    if is_small and content.is_eof() and content.exception() is None:
        # The whole body was received together with the headers.
        return content.read_nowait()
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            if is_small:
                return await request.read()
            parts = []
            async for part in _pieces(request, coding):
                count(part)
                parts.append(part)
            return b"".join(parts)
    except TimeoutError:
        raise Malformed(f"the body was not received within {BODY_SECONDS_MAX:.0f} s") from None
    except RequestPayloadError:
        raise Malformed("the body is incomplete, or its transfer coding is invalid") from None


async def _pieces(request: web.Request, coding: str) -> AsyncIterator[bytes]:
    if coding == "identity":
        async for part in request.content.iter_any():
            yield part
        return
    decompressor = Decompressor(coding)
    async for part in request.content.iter_any():
        async for piece in in_slices(decompressor.decompress(part)):
            yield piece
    decompressor.finish()
