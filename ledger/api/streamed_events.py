"""Streamed responses of events (NDJSON, export, streams): made in turns, aborted if they fail midway."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from ledger.api.compression import GZIPPED, PLAIN_BYTES_MAX, VARY, Compressor, accepts_gzip
from ledger.api.heavy_reads import TURNS
from ledger.api.revocation import while_authorized
from ledger.database import log_level

logger = logging.getLogger(__name__)

PAGE_EVENTS = 1_000
PAGE_CHARACTERS = 1024 * 1024
"""The most events in a piece, and the most characters in a piece of more than one event."""


async def stream(
    request: web.Request, response: web.StreamResponse, pieces: AsyncIterator[bytes]
) -> web.StreamResponse:
    """Stream a response whose pieces are made in turns; abort it if that fails or the key is revoked.

    Args:
        request: a heavy read.
        response: with the headers, not yet prepared.
        pieces: of the body; an empty one only ends a turn.

    Returns:
        the response, which is complete or aborted.

    Raises:
        LedgerError, OSError and others: the first piece could not be made, for a HEAD too.
    """
    pieces = request[TURNS].take_for_each(pieces)
    # Made before the response begins: if the database is down, the client still receives a problem document.
    piece = await anext(pieces, None)
    compressor = _compressor(request, response, piece)
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    async with complete_or_abort(request, response), while_authorized(request):
        while piece is not None:
            # write() waits for a slow client, without a turn.
            if piece:
                await response.write(await compressor.compress(piece) if compressor is not None else piece)
            piece = await anext(pieces, None)
        if compressor is not None:
            await response.write(compressor.finish())
    return response


def _compressor(request: web.Request, response: web.StreamResponse, first: bytes | None) -> Compressor | None:
    """Return the compressor of a response, and set its headers; None if it is sent as it is."""
    response.headers.update(VARY)
    is_short = first is None or 0 < len(first) <= PLAIN_BYTES_MAX
    if is_short or not accepts_gzip(request.headers.get("Accept-Encoding", "")):
        return None
    response.headers.update(GZIPPED)
    if "ETag" in response.headers:
        # The same content in other bytes (RFC 9110, section 8.8.1).
        response.headers["ETag"] = f"W/{response.headers['ETag']}"
    return Compressor()


@asynccontextmanager
async def complete_or_abort(request: web.Request, response: web.StreamResponse) -> AsyncIterator[None]:
    """End a streamed response; if it fails midway, abort the connection, so that no client takes it for complete."""
    try:
        yield
        await response.write_eof()
    except Exception as error:  # noqa: BLE001 (the response has begun: it can only be aborted)
        kind = type(error).__name__
        logger.log(log_level(error), "%s %s was aborted: %s", request.method, request.path, kind)
        if request.transport is not None:
            request.transport.abort()
