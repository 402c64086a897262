"""The append queue: bounded, with a share for each key; groups are taken from it fairly.

The key that has used the least time is served first. A heavy request also waits for a moment if a key that has used
less time was active just now: a client that sends one request at a time has nothing queued when its answer arrives,
and would otherwise wait for a whole batch of the other key each time. The wait is charged to that key, so it cannot
stop the writer for more than its share.
"""

import asyncio
import heapq
import math
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from ledger.domain.errors import Overloaded
from ledger.domain.event import Request
from ledger.domain.judge import Verdict

GROUP_EVENTS_MAX = 2_000
"""The most events in a group: with more, throughput hardly grows, and latency does."""

GROUP_CHARACTERS_MAX = 8 * 1024 * 1024
"""The most characters in a group, unless one request alone has more: it must be written before the timeout."""

QUEUE_EVENTS_MAX = 20_000
QUEUE_CHARACTERS_MAX = 64 * 1024 * 1024
"""The bounds of the queue if one key sends; of several keys, each may queue its share of them."""

QUEUE_FULL = "too many events are waiting to be recorded; retry in 1 s"

HEAVY_EVENTS_MIN = 200
"""A request of at least this size keeps the writer long enough to matter to other keys."""

ACTIVE_SECONDS = 0.1
"""A key counts as active while a request of it is being recorded, and for this time after the answer."""

CREDIT_SECONDS = 0.1
"""Head start of a new or returning key: enough to be served next, too little to send several
large batches before them, however long it was idle."""

RECENT_SECONDS = 1.0
"""While other keys have sent in this time, heavy requests are not judged ahead."""

FORGET_SECONDS = 5.0
"""A key that was idle for this time is forgotten."""

HTTP_SECONDS = 0.00001
"""The estimated time that the event loop takes to decode an event and to answer it; charged like writer time."""

EVENT_SECONDS = 0.0001
"""The estimated writer time of an event, until the measured time of its group replaces it."""


class QueuedRequest(NamedTuple):
    """A request in the queue, and the future that its sender awaits."""

    request: Request
    answer: "asyncio.Future[Verdict]"
    key: str
    events: int
    characters: int


class _Key:
    """The queued requests of one key, and the time that it has used."""

    def __init__(self, used_seconds: float) -> None:
        self.waiting: deque[QueuedRequest] = deque()
        self.events = 0
        self.characters = 0
        self.unanswered = 0
        self.used_seconds = used_seconds
        self.active_at = 0.0

    def active_until(self) -> float:
        """Return the time until which the key counts as active."""
        return math.inf if self.unanswered else self.active_at + ACTIVE_SECONDS


class Delay(NamedTuple):
    """How long a heavy request should wait for the next requests of lighter keys."""

    seconds: float
    keys: list[_Key]


class AppendQueue:
    """The requests that wait to be recorded, by key."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self._keys: dict[str, _Key] = {}
        self._events = 0
        self._characters = 0
        # The virtual time of the fair queue: keys start or return shortly before it.
        self._virtual_seconds = 0.0

    def __bool__(self) -> bool:
        """Whether any request waits."""
        return self._events > 0

    def put(self, request: Request) -> "asyncio.Future[Verdict]":
        """Queue a request, and return the future of its verdict.

        Raises:
            Overloaded: the key has queued more than its share; nothing was queued.
        """
        candidates = request.candidates
        events = len(candidates)
        characters = sum(len(candidate.data) + len(candidate.text or "") for candidate in candidates)
        if not self:
            self._virtual_seconds = max((key.used_seconds for key in self._keys.values()), default=0.0)
        key = self._keys.setdefault(candidates[0].actor, _Key(self._virtual_seconds - CREDIT_SECONDS))
        if key.waiting and self._is_past_share(key, events, characters):
            raise Overloaded(QUEUE_FULL)
        if not key.waiting:
            key.used_seconds = max(key.used_seconds, self._virtual_seconds - CREDIT_SECONDS)
        key.used_seconds += events * HTTP_SECONDS
        waiting = QueuedRequest(
            request, asyncio.get_running_loop().create_future(), candidates[0].actor, events, characters
        )
        key.waiting.append(waiting)
        key.active_at = time.monotonic()
        self._count(key, events, characters)
        self.arrived.set()
        return waiting.answer

    def require_room(self, actor: str, events: int) -> None:
        """Raise `Overloaded` if `put` would refuse this many events of a key."""
        key = self._keys.get(actor)
        if key is not None and key.waiting and self._is_past_share(key, events, characters=0):
            raise Overloaded(QUEUE_FULL)

    @property
    def events(self) -> int:
        """The number of events that wait."""
        return self._events

    def take_group(
        self, events_max: int, characters_max: int = GROUP_CHARACTERS_MAX, *, at_least_one: bool = True
    ) -> list[QueuedRequest]:
        """Take the next group: requests of the keys that have used the least time, in turns.

        Args:
            events_max: the most events.
            characters_max: the most characters.
            at_least_one: take the next request even if it alone is larger.
        """
        group: list[QueuedRequest] = []
        # The number of each key decides between equal times.
        turns = [(key.used_seconds, number, key) for number, key in enumerate(self._keys.values()) if key.waiting]
        heapq.heapify(turns)
        while turns:
            _, number, key = turns[0]
            waiting = key.waiting[0]
            events_max -= waiting.events
            characters_max -= waiting.characters
            if (events_max < 0 or characters_max < 0) and (group or not at_least_one):
                break
            self._virtual_seconds = max(self._virtual_seconds, key.used_seconds)
            self._count(key, -waiting.events, -waiting.characters)
            group += self._take(key)
            if key.waiting:
                heapq.heapreplace(turns, (key.used_seconds, number, key))
            else:
                heapq.heappop(turns)
        return group

    def _take(self, key: _Key) -> list[QueuedRequest]:
        """Take the next request of a key, unless its sender is gone."""
        waiting = key.waiting.popleft()
        if waiting.answer.cancelled():
            return []
        key.used_seconds += waiting.events * EVENT_SECONDS
        key.unanswered += 1
        return [waiting]

    def take_all(self) -> list[QueuedRequest]:
        """Empty the queue."""
        taken = [waiting for key in self._keys.values() for waiting in key.waiting]
        self._keys.clear()
        self._events = self._characters = 0
        return taken

    def delay(self) -> Delay | None:
        """Return how long the next group should wait, if it begins with a heavy request and lighter keys are active."""
        first = self._next_key()
        if first is None or first.waiting[0].events < HEAVY_EVENTS_MIN:
            return None
        now = time.monotonic()
        keys = [
            key
            for key in self._keys.values()
            if not key.waiting and key.used_seconds < first.used_seconds and key.active_until() > now
        ]
        return Delay(min(ACTIVE_SECONDS, max(key.active_until() for key in keys) - now), keys) if keys else None

    def should_yield(self) -> bool:
        """Whether the next request is heavy and, judged ahead, would delay lighter keys that have sent recently."""
        first = self._next_key()
        if first is None or first.waiting[0].events < HEAVY_EVENTS_MIN:
            return False
        recently = time.monotonic() - RECENT_SECONDS
        return any(
            key.used_seconds < first.used_seconds and key.active_until() > recently for key in self._keys.values()
        )

    def charge_delay(self, delay: Delay, seconds: float) -> None:
        """Charge the time for which the writer waited to the keys that it waited for."""
        for key in delay.keys:
            key.used_seconds += seconds / len(delay.keys)

    def charge(self, group: Sequence[QueuedRequest], seconds: float) -> None:
        """Charge the time of a group that was answered to its keys, by their events, instead of the estimate."""
        event_seconds = seconds / max(1, sum(waiting.events for waiting in group))
        now = time.monotonic()
        for waiting in group:
            if (key := self._keys.get(waiting.key)) is not None:
                key.used_seconds += waiting.events * (event_seconds - EVENT_SECONDS)
                key.unanswered = max(0, key.unanswered - 1)
                key.active_at = now
        self._forget_idle_keys(now)

    def _is_past_share(self, key: _Key, events: int, characters: int) -> bool:
        if self._events + events <= QUEUE_EVENTS_MAX and self._characters + characters <= QUEUE_CHARACTERS_MAX:
            return False
        sharing = sum(1 for other in self._keys.values() if other.waiting)
        return (
            key.events + events > QUEUE_EVENTS_MAX // sharing
            or key.characters + characters > QUEUE_CHARACTERS_MAX // sharing
        )

    def _next_key(self) -> _Key | None:
        waiting = (key for key in self._keys.values() if key.waiting)
        return min(waiting, key=lambda key: key.used_seconds, default=None)

    def _count(self, key: _Key, events: int, characters: int) -> None:
        key.events += events
        key.characters += characters
        self._events += events
        self._characters += characters

    def _forget_idle_keys(self, now: float) -> None:
        idle = [
            name for name, key in self._keys.items() if not key.waiting and key.active_until() + FORGET_SECONDS < now
        ]
        for name in idle:
            del self._keys[name]
