"""Events as the API shows them, written as JSON by PostgreSQL.

Reading the columns into Python and encoding them there takes this process eight times as long, during which the event
loop cannot serve appends.
"""

from collections.abc import AsyncIterator
from typing import NamedTuple

from ledger.database import Connection, Database
from ledger.log.read import PAGE_CHARACTERS_MAX, EventFilter, page_query, read_pages

_TIME = """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""

# `concat` skips nulls. Data and text are stored as compact objects, and a text is never empty.
_JSON = f"""concat(
    '{{"position":', position, ',"category":"', category, '","stream_id":"', stream_id, '","version":', version,
    ',"id":"', id, '","type":', to_json(type), ',"schema_version":', schema_version,
    ',"occurred_at":"', {_TIME.format("occurred_at")}, '","recorded_at":"', {_TIME.format("recorded_at")},
    '","actor":', to_json(actor),
    ',"campaign_id":', coalesce('"' || campaign_id || '"', 'null'),
    ',"agent_job_id":', coalesce('"' || agent_job_id || '"', 'null'),
    ',"data":', CASE
        WHEN text IS NULL THEN data::text
        WHEN data::text = '{{}}' THEN text::text
        ELSE left(data::text, -1) || ',' || substr(text::text, 2)
    END,
    ',"correlation_id":"' || correlation_id || '"',
    ',"causation_id":"' || causation_id || '"',
    CASE WHEN text_commitment IS NOT NULL AND text IS NULL THEN ',"erased":true' END,
    '}}')"""


class JsonEvent(NamedTuple):
    """The JSON of an `EventView`, with the position and version that callers need for paging."""

    position: int
    version: int
    json: str


async def read_json_page(
    connection: Connection, selection: EventFilter, limit: int, characters_max: int | None = None
) -> list[JsonEvent]:
    """Read the next page of events as JSON; arguments and order are those of `read_page`."""
    columns = f"position, version, {_JSON} AS json"
    query, arguments = page_query(columns, selection, limit, characters_max or PAGE_CHARACTERS_MAX)
    return [JsonEvent(*row) for row in await connection.fetch(query, *arguments)]


def read_all_json(
    database: Database, selection: EventFilter, page_events_max: int, page_characters_max: int
) -> AsyncIterator[list[JsonEvent]]:
    """Read all selected events as JSON, page by page; arguments and pages are those of `read_all`."""
    return read_pages(database, selection, (page_events_max, page_characters_max), read_json_page)
