"""The rate limit of an API key: counted in windows, without a thread."""

import threading
import time

import limits
import pytest

from ledger.api.rate_limits import RateLimits
from ledger.domain.errors import RateLimited


def test_counting_starts_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    counters = RateLimits(limits.parse("1000/minute"))
    started: list[threading.Thread] = []
    monkeypatch.setattr(threading.Thread, "start", started.append)

    for number in range(5):
        assert not counters.is_exceeded("agent")
        assert f"r={999 - number};" in counters.count("agent")["RateLimit"]
        time.sleep(0.02)

    assert started == []


def test_a_counter_starts_over_when_its_window_is_over() -> None:
    counters = RateLimits(limits.parse("2/second"))
    for _ in range(2):
        counters.count("agent")
    counters.count("another")

    with pytest.raises(RateLimited):
        while True:
            counters.count("agent")
    time.sleep(1.1)

    assert not counters.is_exceeded("agent")
    assert "r=1;" in counters.count("agent")["RateLimit"]
