"""Time zones of reports: names, days and offsets of the IANA database, from the pinned wheel `tzdata`.

PostgreSQL has a database of its own, of another version, so the offsets are sent to it with a query.
"""

from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache
from importlib.resources import files
from typing import NamedTuple
from zoneinfo import ZoneInfo

from ledger.domain.errors import Malformed

FIRST_YEAR, LAST_YEAR = 1970, 2100
"""Times before and after have the offset of the first and of the last moment of these years."""

ZONES_MAX = 64
"""The most zones whose offsets are kept in memory, at 10 KiB each."""

_STEP = timedelta(days=1)
_SECOND = timedelta(seconds=1)


class Offsets(NamedTuple):
    """The offsets from UTC of a zone: `offsets[n]` from `starts[n - 1]` on, the first one before all of `starts`."""

    starts: list[datetime]
    offsets: list[timedelta]


@cache
def zone_names() -> frozenset[str]:
    """Return the names of all zones."""
    return frozenset((files("tzdata") / "zones").read_text().split())


@lru_cache(ZONES_MAX)
def offsets_of(name: str) -> Offsets:
    """Return the offsets of a zone.

    Raises:
        Malformed: there is no such zone.
    """
    if name not in zone_names():
        raise Malformed(f"{name[:50]!r} is no time zone of the IANA database, such as UTC or Europe/Berlin")
    with files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        zone = ZoneInfo.from_file(file, key=name)
    moment, end = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC), datetime(LAST_YEAR, 1, 1, tzinfo=UTC)
    # The first start is no change: PostgreSQL searches in no empty array.
    starts, offsets = [moment], [_offset(zone, moment)] * 2
    while moment < end:
        following = moment + _STEP
        if _offset(zone, following) != offsets[-1]:
            following = _first_change(zone, moment, following)
            starts.append(following)
            offsets.append(_offset(zone, following))
        moment = following
    return Offsets(starts, offsets)


def start_of_day(day: date, zone: Offsets) -> datetime:
    """Return the first moment of a local day, or of the next one if the zone skipped it."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    for start, end, offset in zip([None, *zone.starts], [*zone.starts, None], zone.offsets, strict=True):
        begins = midnight - offset
        if start is not None and begins < start:
            return start
        if end is None or begins < end:
            return begins
    raise AssertionError("the last offset has no end")


def _offset(zone: ZoneInfo, moment: datetime) -> timedelta:
    offset = moment.astimezone(zone).utcoffset()
    assert offset is not None
    return offset


def _first_change(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """Return the first moment in (before, after] with another offset than `before`, to the second."""
    known = _offset(zone, before)
    while after - before > _SECOND:
        middle = before + timedelta(seconds=(after - before) // _SECOND // 2)
        if _offset(zone, middle) == known:
            before = middle
        else:
            after = middle
    return after
