"""GET /v1/log/export: every event as a line, exactly as it is hashed, with its free text and salt."""

from typing import Annotated

import msgspec
from aiohttp import web

from ledger.api.events import complete_or_abort
from ledger.api.parameters import Position, read_query
from ledger.api.routes import NDJSON, Route
from ledger.api.services import Services
from ledger.audit.export_lines import write_line
from ledger.log.point_in_time import resolve_position
from ledger.log.read import EventFilter, read_all_salted, read_head


class ExportQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which events to export."""

    after: Position = 0
    until: Position | None = None


async def get_export(request: web.Request, services: Services) -> web.StreamResponse:
    """Stream every line of the range; if that fails, abort the connection."""
    query = read_query(request, ExportQuery)
    async with services.database.connection() as connection:
        # Checked, because an export that ends before `until` would look complete.
        until = await read_head(connection) if query.until is None else await resolve_position(connection, query.until)
    pages = read_all_salted(services.database, EventFilter(query.after, until))
    # Read before the response begins, so that an outage of the database is still a problem document.
    page = await anext(pages, None)
    response = web.StreamResponse(headers={"Content-Type": NDJSON})
    await response.prepare(request)
    async with complete_or_abort(request, response):
        while page:
            await response.write(b"".join(map(write_line, page)))
            page = await anext(pages, None)
    return response


ROUTES = [
    Route(
        "GET",
        "/v1/log/export",
        get_export,
        "Export the log.",
        {200: Annotated[str, msgspec.Meta(description="The events, one per line.")]},
        ExportQuery,
        problems=("malformed", "database-unavailable"),
        media=(NDJSON,),
        needs="audit",
        description="One event per line, exactly as it is hashed, with its free text and salt. Verify the file without "
        "the service with `ledger verify --export`.",
    )
]
