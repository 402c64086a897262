"""How many requests a key may make, told in the headers of draft-ietf-httpapi-ratelimit-headers.

Counted by each process for itself: so many processes, so many times the limit.
"""

import math
import time

from limits import RateLimitItem
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from ledger.domain.errors import RateLimited


class RateLimits:
    """The counters of one process."""

    def __init__(self, limit: RateLimitItem) -> None:
        self._limit = limit
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._policy = f'"key";q={limit.amount};w={limit.get_expiry()}'

    def count(self, name: str) -> dict[str, str]:
        """Count a request of a key, and return the headers that tell how it stands.

        Raises:
            RateLimited: it has made too many.
        """
        is_within = self._limiter.hit(self._limit, name)
        stats = self._limiter.get_window_stats(self._limit, name)
        seconds = max(1, math.ceil(stats.reset_time - time.time()))
        headers = {"RateLimit-Policy": self._policy, "RateLimit": f'"key";r={stats.remaining};t={seconds}'}
        if not is_within:
            raise RateLimited(f"this key has made {self._limit}; go on in {seconds} s", seconds, headers)
        return headers
