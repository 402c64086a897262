"""GET /v1/log/export: every event as a line, exactly as it is hashed, with its free text and salt."""

import msgspec
from aiohttp import web

from ledger.api.events import whole_or_broken_off
from ledger.api.parameters import Position, read_query
from ledger.api.routes import NDJSON, Route
from ledger.api.services import Services
from ledger.audit.export_lines import write_line
from ledger.log.point_in_time import resolve_position
from ledger.log.read import EventFilter, read_all_salted, read_head


class ExportQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which events: `after` is exclusive; `until` inclusive, the last event there is where it is absent."""

    after: Position = 0
    until: Position | None = None


async def get_export(request: web.Request, services: Services) -> web.StreamResponse:
    """Every line of the range, or an answer that is broken off."""
    query = read_query(request, ExportQuery)
    async with services.database.connection() as connection:
        # Fewer events than were asked for would look like all of them.
        until = await read_head(connection) if query.until is None else await resolve_position(connection, query.until)
    pages = read_all_salted(services.database, EventFilter(query.after, until))
    # Read before the answer begins: a database that is away is still answered with a problem document.
    page = await anext(pages, None)
    answer = web.StreamResponse(headers={"Content-Type": NDJSON})
    await answer.prepare(request)
    async with whole_or_broken_off(request, answer):
        while page:
            await answer.write(b"".join(map(write_line, page)))
            page = await anext(pages, None)
    return answer


ROUTES = [
    Route(
        "GET",
        "/v1/log/export",
        get_export,
        "Export the log, an event a line.",
        {200: str},
        ExportQuery,
        problems=("malformed", "database-unavailable"),
        media=(NDJSON,),
        needs="audit",
    )
]
