"""A point in time of the log: a position or a time of recording, inclusive, not in the future."""

import re
from collections.abc import Callable
from datetime import datetime

import msgspec

from ledger.database import Connection
from ledger.domain.codec import time_text, utc
from ledger.domain.errors import Malformed
from ledger.domain.fields import Instant
from ledger.log.read import read_head

RECORDED_AT = "SELECT recorded_at FROM ledger.events WHERE position = $1"
CLOCK = "SELECT clock_timestamp()"


def parse_point_in_time(text: str) -> int | datetime:
    """Parse a position, or an RFC 3339 time with a time zone.

    Raises:
        Malformed: the text is neither.
    """
    if re.fullmatch(r"[0-9]{1,18}", text, re.ASCII):
        return int(text)
    try:
        if not re.match(r"[0-9]{4}-", text, re.ASCII):
            raise ValueError
        return utc("", msgspec.convert(text, Instant))
    except (ValueError, msgspec.ValidationError):
        raise Malformed(
            f"{text[:50]!r} is neither a position nor a time with a time zone, such as 2025-01-31T12:00:00Z"
        ) from None


def require_reached(head: int, *positions: int | None) -> None:
    """Refuse positions that the log does not reach: they belong to another log, or to a part of it that was lost.

    Args:
        head: the position of the last event, read after the positions were received: a client may have appended just
            now.
        positions: of the client; None is ignored.

    Raises:
        Malformed: the log ends before one of them.
    """
    for position in positions:
        if position is not None and position > head:
            raise Malformed(f"the log ends at position {head}; position {position} does not exist yet")


async def require_positions(connection: Connection, *positions: int | None) -> int:
    """Read the position of the last event and refuse positions beyond it; return it. See `require_reached`."""
    head = await read_head(connection)
    require_reached(head, *positions)
    return head


async def resolve_position(connection: Connection, point_in_time: int | datetime) -> int:
    """Return the position of the last event at this point in time; 0 before the first event.

    Raises:
        Malformed: the log does not reach this point yet, so the answer could still change.
    """
    head = await read_head(connection)
    if isinstance(point_in_time, int):
        require_reached(head, point_in_time)
        return point_in_time
    now = await connection.fetchval(CLOCK)
    if point_in_time > now:
        raise Malformed(f"{time_text(point_in_time)} is in the future (now: {time_text(now)})")
    return await _last_position(connection, head, lambda recorded_at: recorded_at <= point_in_time)


async def last_position_before(connection: Connection, moment: datetime) -> int:
    """Return the position of the last event that was recorded before a time; 0 if there is none."""
    return await _last_position(connection, await read_head(connection), lambda recorded_at: recorded_at < moment)


async def _last_position(connection: Connection, head: int, is_included: Callable[[datetime], bool]) -> int:
    # `recorded_at` never decreases as positions grow, so a binary search by position needs no index on it.
    last_before, first_after = 0, head + 1
    while first_after - last_before > 1:
        middle = (last_before + first_after) // 2
        recorded_at = await connection.fetchval(RECORDED_AT, middle)
        if recorded_at is not None and is_included(recorded_at):
            last_before = middle
        else:
            first_after = middle
    return last_before
