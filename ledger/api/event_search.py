"""Pages of events by filters: times become positions; searches examine a bounded part."""

import msgspec

from ledger.database import Connection
from ledger.log.event_json import JsonEvent, read_json_page
from ledger.log.point_in_time import last_position_before
from ledger.log.read import EventFilter, has_more_than, read_head


async def by_position(connection: Connection, event_filter: EventFilter) -> EventFilter:
    """Return the filter with positions in place of times of recording."""
    after, until = event_filter.after, event_filter.until
    if event_filter.recorded_from is not None:
        after = max(after, await last_position_before(connection, event_filter.recorded_from))
    if event_filter.recorded_to is not None:
        last = await last_position_before(connection, event_filter.recorded_to)
        until = last if until is None else min(until, last)
    return msgspec.structs.replace(event_filter, after=after, until=until, recorded_from=None, recorded_to=None)


async def read_next(
    connection: Connection, event_filter: EventFilter, limit: int
) -> tuple[list[JsonEvent], int | None]:
    """Read a page of events.

    Args:
        connection: of the primary or a replica.
        event_filter: from `by_position`.
        limit: the most events.

    Returns:
        the events, and the position after which the next page begins; None if there is none.
    """
    if event_filter.is_search:
        return await _search(connection, event_filter, limit)
    page = await read_json_page(connection, event_filter, limit)
    return page, await _next_after(connection, event_filter, page)


async def _next_after(connection: Connection, event_filter: EventFilter, page: list[JsonEvent]) -> int | None:
    """Return the position after which the next page begins; None if there is none."""
    if not page:
        return None
    rest = msgspec.structs.replace(event_filter, after=page[-1].position)
    return rest.after if await has_more_than(connection, rest, 0) else None


async def _search(connection: Connection, event_filter: EventFilter, limit: int) -> tuple[list[JsonEvent], int | None]:
    """Read a page of a bounded part of the log; the next one begins where this part ends, if not before."""
    head = await read_head(connection)
    window = event_filter.window(head)
    page = await read_json_page(connection, window, limit)
    following = await _next_after(connection, window, page)
    if following is None and window.until != event_filter.until and window.until != head:
        following = window.until
    return page, following
