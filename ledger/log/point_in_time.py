"""A moment in the log: a position, or a time of recording. Both are inclusive, and neither may lie ahead."""

import re
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from ledger.database import Connection
from ledger.domain.codec import Instant, time_text, utc
from ledger.domain.errors import Malformed
from ledger.log.read import read_head

if TYPE_CHECKING:
    pass

RECORDED_AT = "SELECT recorded_at FROM ledger.events WHERE position = $1"
CLOCK = "SELECT clock_timestamp()"


def parse_point_in_time(text: str) -> int | datetime:
    """Read a position or an RFC 3339 time with its zone.

    Raises:
        Malformed: it is neither.
    """
    if re.fullmatch(r"[0-9]{1,18}", text, re.ASCII):
        return int(text)
    try:
        if not re.match(r"[0-9]{4}-", text, re.ASCII):
            raise ValueError
        return utc("", msgspec.convert(text, Instant))
    except (ValueError, msgspec.ValidationError):
        raise Malformed(
            f"{text[:50]!r} is neither a position nor a time with its zone, such as 2025-01-31T12:00:00Z"
        ) from None


async def resolve_position(connection: Connection, moment: int | datetime) -> int:
    """The position of the last event at this moment; 0 before the first.

    Raises:
        Malformed: the log does not reach so far, so that the answer could still change.
    """
    head = await read_head(connection)
    if isinstance(moment, int):
        if moment > head:
            raise Malformed(f"the log ends at position {head:,}; position {moment:,} is not there yet")
        return moment
    now = await connection.fetchval(CLOCK)
    if moment > now:
        raise Malformed(f"{time_text(moment)} lies in the future (it is {time_text(now)})")
    # `recorded_at` never runs backwards with position: a search by halves needs no index on it.
    none, some = 0, head + 1
    while some - none > 1:
        middle = (none + some) // 2
        recorded_at = await connection.fetchval(RECORDED_AT, middle)
        none, some = (middle, some) if recorded_at is not None and recorded_at <= moment else (none, middle)
    return none
