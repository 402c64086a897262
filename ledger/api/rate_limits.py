"""Rate limits: requests per API key in a fixed window, with RateLimit headers (IETF draft).

The headers are those of draft-ietf-httpapi-ratelimit-headers. Each process counts separately, so the effective limit is
the limit times the number of processes.
"""

import math
import threading
import time

from limits import RateLimitItem
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from ledger.domain.errors import RateLimited


class _Counters(MemoryStorage):
    """Counters that start no thread: there is one for each key, and each is reset when its window is over.

    The library's start one every 10 ms to delete old counters. The event loop waits until the thread runs, which takes
    seconds on a busy machine.
    """

    def __init__(self) -> None:
        super().__init__()
        self.timer.cancel()
        # The counters start a thread whenever this one has ended.
        self.timer = threading.main_thread()  # type: ignore[assignment]


class RateLimits:
    """The request counters of one process."""

    def __init__(self, limit: RateLimitItem) -> None:
        self._limit = limit
        self._limiter = FixedWindowRateLimiter(_Counters())
        self._policy = f'"key";q={limit.amount};w={limit.get_expiry()}'
        self._window = (
            limit.GRANULARITY.name if limit.multiples == 1 else f"{limit.multiples} {limit.GRANULARITY.name}s"
        )

    def is_exceeded(self, name: str) -> bool:
        """Whether `count` would refuse the next request of a key."""
        return not self._limiter.test(self._limit, name)

    def count(self, name: str) -> dict[str, str]:
        """Count a request of a key, and return the headers with its remaining quota.

        Raises:
            RateLimited: the limit is exceeded.
        """
        is_allowed = self._limiter.hit(self._limit, name)
        stats = self._limiter.get_window_stats(self._limit, name)
        seconds = max(1, math.ceil(stats.reset_time - time.time()))
        headers = {"RateLimit-Policy": self._policy, "RateLimit": f'"key";r={stats.remaining};t={seconds}'}
        if not is_allowed:
            detail = f"rate limit of {self._limit.amount:,} requests per {self._window} exceeded; retry in {seconds} s"
            raise RateLimited(detail, seconds, headers)
        return headers
