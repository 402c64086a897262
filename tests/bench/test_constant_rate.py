"""The load at a constant rate: appends or visibility are measured, refused events are counted."""

from pathlib import Path

import pytest

from ledger.bench.constant_rate_process import run_at_constant_rate
from ledger.bench.errors import MeasurementError
from tests.bench.test_load_process import url_of
from tests.conftest import Service

pytestmark = pytest.mark.direct

EVENTS_PER_SECOND = 50


async def test_every_append_is_measured(prepared: Service, tmp_path: Path) -> None:
    head = await prepared.head()

    result = await run_at_constant_rate(
        url_of(prepared), "appends", seconds=1, events_per_second=EVENTS_PER_SECOND, folder=tmp_path
    )

    assert result.samples == result.sent == await prepared.head() - head
    assert result.refused == 0
    assert 0 < result.p50_ms <= result.p99_ms


async def test_every_tenth_event_is_read_back(prepared: Service, tmp_path: Path) -> None:
    result = await run_at_constant_rate(
        url_of(prepared), "visibility", seconds=1, events_per_second=EVENTS_PER_SECOND, folder=tmp_path
    )

    assert result.samples == -(-result.sent // 10)


async def test_refused_events_are_counted_and_the_first_response_is_kept(service: Service, tmp_path: Path) -> None:
    """Nothing is prepared, so that every cost refers to an unknown job."""
    result = await run_at_constant_rate(
        url_of(service), "appends", seconds=1, events_per_second=EVENTS_PER_SECOND, folder=tmp_path
    )

    assert result.refused == result.sent > 0
    assert result.samples == 0
    assert result.refusal.startswith("422 ")


async def test_a_service_that_cannot_be_reached_fails_the_measurement(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError):
        await run_at_constant_rate("http://127.0.0.1:9", "appends", seconds=1, events_per_second=1, folder=tmp_path)
