"""Rate limits: requests per API key in a fixed window, with RateLimit headers (IETF draft).

The headers are those of draft-ietf-httpapi-ratelimit-headers. Each process counts separately, so the effective limit is
the limit times the number of processes. Of the library `limits` only the notation is used: counting a request and
reading its window there takes 21 µs, which is more than decoding an event.
"""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

from limits import RateLimitItem

from ledger.domain.errors import RateLimited


class _Window(NamedTuple):
    """The requests of a key since its first one, until the time at which the next window may begin."""

    ends_at: float
    requests: int


class RateLimits:
    """The request counters of one process: one for each key that was used."""

    def __init__(self, limit: RateLimitItem, clock: Callable[[], float] = time.monotonic) -> None:
        """Make the counters; `clock` returns seconds."""
        self._amount = limit.amount
        self._seconds = limit.get_expiry()
        self._clock = clock
        self._windows: dict[str, _Window] = {}
        self._policy = f'"key";q={self._amount};w={self._seconds}'
        self._period = (
            limit.GRANULARITY.name if limit.multiples == 1 else f"{limit.multiples} {limit.GRANULARITY.name}s"
        )

    def is_exceeded(self, name: str) -> bool:
        """Whether `count` would refuse the next request of a key."""
        return self._current(name, self._clock()).requests >= self._amount

    def count(self, name: str) -> dict[str, str]:
        """Count a request of a key, and return the headers with its remaining quota.

        Raises:
            RateLimited: the limit is exceeded.
        """
        now = self._clock()
        ends_at, before = self._current(name, now)
        self._windows[name] = _Window(ends_at, before + 1)
        seconds = max(1, math.ceil(ends_at - now))
        remaining = max(0, self._amount - before - 1)
        headers = {"RateLimit-Policy": self._policy, "RateLimit": f'"key";r={remaining};t={seconds}'}
        if before >= self._amount:
            detail = f"rate limit of {self._amount:,} requests per {self._period} exceeded; retry in {seconds} s"
            raise RateLimited(detail, seconds, headers)
        return headers

    def _current(self, name: str, now: float) -> _Window:
        window = self._windows.get(name)
        return window if window is not None and now < window.ends_at else _Window(now + self._seconds, 0)
