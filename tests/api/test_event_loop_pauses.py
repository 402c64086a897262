"""The gauge of the event loop's longest pause: what it covers, and that the service measures it."""

import asyncio
import time

import pytest

from ledger.api.event_loop_pauses import INTERVAL_SECONDS, WINDOW_SECONDS, EventLoopPauses
from tests.api.test_observing import metrics
from tests.conftest import Service

PAUSE_SECONDS = 0.3


class Clock:
    """A clock that moves only if it is set."""

    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def measured(*seconds_between: float) -> float:
    """Return the longest pause after measurements with these seconds between them."""
    clock = Clock()
    pauses = EventLoopPauses(clock)
    for seconds in seconds_between:
        clock.seconds += seconds
        pauses.measure()
    return pauses.longest_seconds()


def test_a_pause_is_what_a_measurement_is_late() -> None:
    assert measured(INTERVAL_SECONDS, INTERVAL_SECONDS + 0.25, INTERVAL_SECONDS + 0.125) == pytest.approx(0.25)


def test_measurements_on_time_are_no_pause() -> None:
    assert measured(INTERVAL_SECONDS, INTERVAL_SECONDS) == pytest.approx(0)


def test_a_pause_is_kept_for_a_whole_window_and_then_forgotten() -> None:
    quiet_window = [WINDOW_SECONDS / 4] * 4

    assert measured(40, *quiet_window) == pytest.approx(40 - INTERVAL_SECONDS)
    assert measured(40, *quiet_window, *quiet_window) < 40 - INTERVAL_SECONDS


async def test_the_service_shows_its_longest_pause(service: Service) -> None:
    await asyncio.sleep(0)
    time.sleep(PAUSE_SECONDS)
    await asyncio.sleep(2 * INTERVAL_SECONDS)

    pause = (await metrics(service.client))["ledger_event_loop_longest_pause_seconds"]

    assert pause >= PAUSE_SECONDS - 2 * INTERVAL_SECONDS
