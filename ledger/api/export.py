"""GET /v1/log/export: every event as a line, exactly as it is hashed, with its free text and salt."""

from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from aiohttp import web

from ledger.api.parameters import Position, read_query
from ledger.api.routes import NDJSON, Route, always
from ledger.api.services import Services
from ledger.api.streamed_events import PAGE_CHARACTERS, stream
from ledger.audit.export_lines import write_line
from ledger.log.complete_export import read_with_erasures
from ledger.log.point_in_time import require_positions
from ledger.log.read import EventFilter, SaltedEvent, read_all_salted
from ledger.time_slices import in_slices

PAGE_EVENTS = 250
"""Reading the columns of more events at a time would block the event loop for several milliseconds."""


class ExportQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which events to export."""

    after: Position = 0
    until: Position | None = None


async def get_export(request: web.Request, services: Services) -> web.StreamResponse:
    """Stream every line of the range; if that fails, abort the connection."""
    query = read_query(request, ExportQuery)
    async with services.database.connection() as connection:
        # Checked, because an export that ends before `until` would look complete.
        head = await require_positions(connection, query.after, query.until)
    if query.until is None:
        pages = read_with_erasures(services.database, query.after, head, PAGE_EVENTS, PAGE_CHARACTERS)
    else:
        pages = read_all_salted(services.database, EventFilter(query.after, query.until), PAGE_EVENTS, PAGE_CHARACTERS)
    return await stream(request, web.StreamResponse(headers={"Content-Type": NDJSON}), _lines(pages))


async def _lines(pages: AsyncIterator[list[SaltedEvent]]) -> AsyncIterator[bytes]:
    async for page in pages:
        yield b"".join([write_line(event) async for event in in_slices(page)])


ROUTES = [
    Route(
        "GET",
        "/v1/log/export",
        get_export,
        "Export the log.",
        {200: Annotated[str, msgspec.Meta(description="The events, one per line.")]},
        ExportQuery,
        problems=("malformed", "overloaded", "database-unavailable"),
        media=(NDJSON,),
        needs="audit",
        is_heavy=always,
        description="One event per line, exactly as it is hashed, with its free text and salt. Verify the file without "
        "the service with `ledger verify --export`. Without `until` the export ends with the log, or with the last "
        "record of an erasure of a text in it; with `until` such a record may be missing.",
    )
]
