"""Rate limits: a fixed window for each key, and the headers with what remains of it."""

import limits
import pytest

from ledger.api.rate_limits import RateLimits
from ledger.domain.errors import RateLimited


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_window_begins_with_the_first_request_and_another_one_after_its_end() -> None:
    clock = Clock()
    counters = RateLimits(limits.parse("2/minute"), clock)

    assert counters.count("a") == {"RateLimit-Policy": '"key";q=2;w=60', "RateLimit": '"key";r=1;t=60'}
    clock.now += 20.5
    assert counters.count("a")["RateLimit"] == '"key";r=0;t=40'
    assert counters.is_exceeded("a")
    with pytest.raises(RateLimited, match="rate limit of 2 requests per minute exceeded; retry in 40 s") as refused:
        counters.count("a")
    assert refused.value.retry_after_seconds == 40
    assert refused.value.headers["RateLimit"] == '"key";r=0;t=40'

    clock.now += 39.5
    assert not counters.is_exceeded("a")
    assert counters.count("a")["RateLimit"] == '"key";r=1;t=60'


def test_each_key_has_a_window_of_its_own() -> None:
    counters = RateLimits(limits.parse("1/2hours"), Clock())
    counters.count("a")

    assert counters.is_exceeded("a")
    assert not counters.is_exceeded("b")
    assert counters.count("b") == {"RateLimit-Policy": '"key";q=1;w=7200', "RateLimit": '"key";r=0;t=7200'}
    with pytest.raises(RateLimited, match="1 requests per 2 hours"):
        counters.count("b")
