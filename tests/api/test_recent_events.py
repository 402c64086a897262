"""The window of recent events: whole from its floor to its head, and never larger than it may be."""

import random
import uuid
from datetime import UTC, datetime

import pytest

from ledger.api import recent_events
from ledger.api.recent_events import RecentEvents, server_sent_event
from ledger.log.read import EventFilter, StoredEvent

NOW = datetime(2025, 1, 1, tzinfo=UTC)
EVERYTHING = EventFilter()


def stored(position: int, characters: int = 10, category: str = "cost") -> StoredEvent:
    """An event as the log holds it."""
    data = f'{{"notes":"{"n" * characters}"}}'
    ids = (uuid.UUID(int=position), 1, uuid.UUID(int=position))
    return StoredEvent(
        position, category, *ids, f"{category}.recorded", 1, NOW, NOW, "local", *(None,) * 4, data, None, None
    )


def all_parts(window: RecentEvents, wanted: EventFilter, after: int) -> bytes:
    """Everything that a listener takes from there, part by part."""
    taken = b""
    while after < window.head:
        part = window.next_chunk(wanted, after)
        assert part.position > after
        taken, after = taken + part.frames, part.position
    return taken


def test_parts_are_every_event_once_in_order_from_wherever_one_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_events, "CHUNK_BYTES", 1_000)
    monkeypatch.setattr(recent_events, "CHUNK_EVENTS_MAX", 7)
    events = [stored(position, category=random.choice(["cost", "job"])) for position in range(6, 106)]
    window = RecentEvents(5)
    window.append(events[:30], 35)
    window.append(events[30:], 105)

    for after in (5, 6, 34, 35, 36, 104, 105):
        assert all_parts(window, EVERYTHING, after) == b"".join(map(server_sent_event, events[after - 5 :]))
    jobs = b"".join(server_sent_event(event) for event in events if event.category == "job")
    assert all_parts(window, EventFilter(categories=("job",)), 5) == jobs
    assert window.next_chunk(EVERYTHING, 2**62) == (b"", 2**62)


def test_it_holds_no_more_events_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_events, "RECENT_EVENTS_MAX", 10)
    window = RecentEvents(0)

    for start in range(1, 100, 3):
        page = [stored(position) for position in range(start, start + 3)]
        window.append(page, start + 2)
        assert len(window) <= 10
        assert window.floor == window.head - len(window)

    assert all_parts(window, EVERYTHING, 89) == b"".join(
        server_sent_event(stored(position)) for position in range(90, 100)
    )


def test_it_holds_no_more_bytes_than_it_may_but_always_the_newest_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_events, "RECENT_BYTES_MAX", 20_000)
    window = RecentEvents(0)
    sizes = [random.choice([10, 3_000, 50_000]) for _ in range(50)] + [50_000]

    for position, size in enumerate(sizes, 1):
        window.append([stored(position, size)], position)
        held = [server_sent_event(stored(at, sizes[at - 1])) for at in range(window.floor + 1, position + 1)]
        assert window.size == sum(map(len, held))
        assert window.size <= 20_000 or len(window) == 1

    assert len(window) == 1
    assert all_parts(window, EVERYTHING, 50) == server_sent_event(stored(51, 50_000))
