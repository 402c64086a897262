"""Compressed answers: gzip for reads over 1 KiB, for clients that accept it (RFC 9110)."""

import asyncio
import re
import zlib
from collections.abc import Callable
from functools import lru_cache

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

PLAIN_BYTES_MAX = 1024
"""A longer answer is compressed."""

INLINE_BYTES_MAX = 16 * 1024
"""More is compressed in a thread: it would keep the event loop for more than half a millisecond."""

LEVEL = 1
"""The fastest: higher levels take several times as long, and JSON becomes little smaller."""

COMPRESSIBLE = frozenset({"application/json", "application/x-ndjson", "text/plain"})

VARY = {"Vary": "Accept-Encoding"}
GZIPPED = {"Content-Encoding": "gzip", **VARY}

_GZIP_BITS = zlib.MAX_WBITS | 16
_WEIGHT = re.compile(r"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)", re.ASCII | re.IGNORECASE)


@lru_cache(256)
def accepts_gzip(header: str) -> bool:
    """Return whether a client accepts gzip, by its header `Accept-Encoding`; an unreadable weight is a refusal."""
    weights: dict[str, float] = {}
    for part in header.lower().split(","):
        coding, *parameters = (piece.strip() for piece in part.split(";"))
        weights[coding] = _weight(parameters)
    chosen = next((name for name in ("gzip", "x-gzip", "*") if name in weights), None)
    return chosen is not None and weights[chosen] > 0


def _weight(parameters: list[str]) -> float:
    if not parameters:
        return 1.0
    weight = _WEIGHT.fullmatch(parameters[0])
    return float(weight[1]) if weight is not None and len(parameters) == 1 else 0.0


class Compressor:
    """Compresses one body, in parts, each of which the client can decompress when it arrives."""

    def __init__(self) -> None:
        self._stream = zlib.compressobj(LEVEL, zlib.DEFLATED, _GZIP_BITS)

    async def compress(self, part: bytes) -> bytes:
        """Return the next part, compressed."""
        return await _run(self._compress, part)

    def _compress(self, part: bytes) -> bytes:
        return self._stream.compress(part) + self._stream.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        """Return the end of the body."""
        return self._stream.flush()


async def compress(body: bytes) -> bytes:
    """Return a whole body, compressed."""
    return await _run(_gzip, body)


def _gzip(body: bytes) -> bytes:
    return zlib.compress(body, LEVEL, _GZIP_BITS)


async def _run(function: Callable[[bytes], bytes], body: bytes) -> bytes:
    return function(body) if len(body) <= INLINE_BYTES_MAX else await asyncio.to_thread(function, body)


@web.middleware
async def compress_answers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Compress the answer to a read; streamed answers compress themselves."""
    response = await handler(request)
    if request.method not in (hdrs.METH_GET, hdrs.METH_HEAD) or not isinstance(response, web.Response):
        return response
    body = response.body
    if not isinstance(body, bytes) or not is_compressible(response, len(body)):
        return response
    response.headers.update(VARY)
    if accepts_gzip(request.headers.get("Accept-Encoding", "")):
        response.body = await compress(body)
        response.headers.update(GZIPPED)
    return response


def is_compressible(response: web.Response, length: int) -> bool:
    """Return whether a response is compressed if the client accepts that."""
    return response.status == 200 and length > PLAIN_BYTES_MAX and response.content_type in COMPRESSIBLE
