"""Time zones: offsets are those of the pinned database at any time, and days begin where they do."""

import random
import zoneinfo
from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from ledger.domain.errors import Malformed
from ledger.time_zones import offsets_of, start_of_day, zone_names

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/Los_Angeles",
    "America/Sao_Paulo",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Africa/Casablanca",
    "Pacific/Apia",
    "America/Havana",
    "Asia/Gaza",
)
BEGIN, END = datetime(2000, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True, scope="module")
def pinned_database() -> Iterator[None]:
    """Let `zoneinfo` read the pinned database too: that of the machine may be another version."""
    path = zoneinfo.TZPATH
    zoneinfo.reset_tzpath(())
    ZoneInfo.clear_cache()
    yield
    zoneinfo.reset_tzpath(path)
    ZoneInfo.clear_cache()


@pytest.mark.parametrize("name", ZONES)
def test_the_offsets_are_those_of_the_database_at_any_time(name: str) -> None:
    zone, offsets, draw = ZoneInfo(name), offsets_of(name), random.Random(name)
    seconds = int((END - BEGIN).total_seconds())
    moments = [BEGIN + timedelta(seconds=draw.randrange(seconds)) for _ in range(2000)]
    moments += [start + timedelta(microseconds=step) for start in offsets.starts for step in (-1, 0)]

    for moment in (each for each in moments if BEGIN <= each < END):
        assert offsets.offsets[bisect_right(offsets.starts, moment)] == moment.astimezone(zone).utcoffset()


@pytest.mark.parametrize("name", ZONES)
def test_a_day_begins_at_the_first_moment_with_its_date(name: str) -> None:
    zone, offsets = ZoneInfo(name), offsets_of(name)
    for number in range(0, 9000):
        day = date(2010, 1, 1) + timedelta(days=number)
        begins = start_of_day(day, offsets)
        before = begins - timedelta(microseconds=1)
        # A zone may skip a day: then the next one begins there.
        assert before.astimezone(zone).date() < day <= begins.astimezone(zone).date()


def test_days_of_23_and_25_hours_a_day_without_midnight_and_a_day_that_was_skipped() -> None:
    berlin, sao_paulo, apia = (offsets_of(name) for name in ("Europe/Berlin", "America/Sao_Paulo", "Pacific/Apia"))

    def hours(day: date, zone: object) -> float:
        assert isinstance(zone, type(berlin))
        return (start_of_day(day + timedelta(days=1), zone) - start_of_day(day, zone)) / timedelta(hours=1)

    assert (hours(date(2026, 3, 29), berlin), hours(date(2026, 10, 25), berlin)) == (23, 25)
    assert start_of_day(date(2018, 11, 4), sao_paulo) == datetime(2018, 11, 4, 3, tzinfo=UTC)
    assert hours(date(2011, 12, 30), apia) == 0


@pytest.mark.parametrize("name", ["", "utc", "Europe/Berlin/", "Europe/../Europe/Berlin", "/etc/passwd", "Mars/Base"])
def test_an_unknown_zone_is_refused(name: str) -> None:
    with pytest.raises(Malformed, match="no time zone"):
        offsets_of(name)


def test_every_zone_can_be_read() -> None:
    assert len(zone_names()) > 400
    assert {"UTC", "Europe/Berlin"} <= zone_names()
