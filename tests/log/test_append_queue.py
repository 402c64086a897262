"""The append queue: bounds and shares, turns by used time, the credit of idle keys, the delay of heavy requests."""

from typing import Any

import pytest

from ledger.domain.errors import Overloaded
from ledger.log import append_queue
from ledger.log.append_queue import AppendQueue, Waiting
from tests.events import cost
from tests.log.helpers import candidate, turns
from ledger.domain.event import Request


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(append_queue, "time", clock)
    return clock


def sent(key: str, events: int = 1, characters: int = 0) -> Request:
    """A request of a key with events whose data has at least this many characters in all."""
    one = candidate(cost(description="x" * (characters // events))) if characters else candidate(cost())
    return Request([candidate(cost(description="x" * (characters // events)) if characters else cost(), actor=key)] * events)
