"""Event-loop pauses: the longest time for which one callback blocked all others of the process."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry, Gauge

INTERVAL_SECONDS = 0.02
"""Time between two measurements: a pause is measured as up to this much shorter than it was."""

WINDOW_SECONDS = 60.0


class EventLoopPauses:
    """The longest pause of the current window and of the one before, so that every scrape covers a whole window."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        # Not loop.time(), which uvloop reads once per iteration, before the callbacks that may take long.
        self._clock = clock
        self._measured_at = self._window_began = clock()
        self._current = self._previous = 0.0

    def measure(self) -> None:
        """Record how late this call is, if it was due INTERVAL_SECONDS after the one before."""
        now = self._clock()
        if now - self._window_began >= WINDOW_SECONDS:
            self._window_began, self._previous, self._current = now, self._current, 0.0
        self._current = max(self._current, now - self._measured_at - INTERVAL_SECONDS)
        self._measured_at = now

    def longest_seconds(self) -> float:
        """Return the longest pause of the last one to two windows."""
        return max(self._current, self._previous)


@asynccontextmanager
async def event_loop_pauses(registry: CollectorRegistry) -> AsyncIterator[None]:
    """Measure the pauses of the running event loop inside the context, and show the longest in `/metrics`."""
    loop, pauses = asyncio.get_running_loop(), EventLoopPauses()
    gauge = Gauge(
        "ledger_event_loop_longest_pause_seconds",
        "Longest time for which the event loop was blocked, in the last one to two minutes.",
        registry=registry,
    )
    gauge.set_function(pauses.longest_seconds)

    timer: asyncio.TimerHandle | None = None

    def measure() -> None:
        nonlocal timer
        pauses.measure()
        timer = loop.call_later(INTERVAL_SECONDS, measure)

    measure()
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()
