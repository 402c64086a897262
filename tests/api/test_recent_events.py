"""The window of recent events: complete from floor to head, bounded in events and bytes."""

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
    """Return a stored event."""
    data = f'{{"notes":"{"n" * characters}"}}'
    ids = (uuid.UUID(int=position), 1, uuid.UUID(int=position))
    return StoredEvent(
        position, category, *ids, f"{category}.recorded", 1, NOW, NOW, "local", *(None,) * 4, data, None, None
    )


def all_chunks(window: RecentEvents, event_filter: EventFilter, after: int) -> bytes:
    """Return everything that a subscriber takes from there, chunk by chunk."""
    frames = b""
    while after < window.head:
        chunk = window.next_chunk(event_filter, after)
        assert chunk.position > after
        frames, after = frames + chunk.frames, chunk.position
    return frames


def test_chunks_have_every_event_once_in_order_from_any_position(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_events, "CHUNK_BYTES", 1_000)
    monkeypatch.setattr(recent_events, "CHUNK_EVENTS_MAX", 7)
    events = [stored(position, category=random.choice(["cost", "job"])) for position in range(6, 106)]
    window = RecentEvents(5)
    window.append(events[:30], 35)
    window.append(events[30:], 105)

    for after in (5, 6, 34, 35, 36, 104, 105):
        assert all_chunks(window, EVERYTHING, after) == b"".join(map(server_sent_event, events[after - 5 :]))
    jobs = b"".join(server_sent_event(event) for event in events if event.category == "job")
    assert all_chunks(window, EventFilter(categories=("job",)), 5) == jobs
    assert window.next_chunk(EVERYTHING, 2**62) == (b"", 2**62)


def test_the_window_has_at_most_its_limit_of_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_events, "RECENT_EVENTS_MAX", 10)
    window = RecentEvents(0)

    for start in range(1, 100, 3):
        page = [stored(position) for position in range(start, start + 3)]
        window.append(page, start + 2)
        assert len(window) <= 10
        assert window.floor == window.head - len(window)

    assert all_chunks(window, EVERYTHING, 89) == b"".join(
        server_sent_event(stored(position)) for position in range(90, 100)
    )


def test_the_window_has_at_most_its_limit_of_bytes_but_always_the_newest_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_events, "RECENT_BYTES_MAX", 20_000)
    window = RecentEvents(0)
    sizes = [random.choice([10, 3_000, 50_000]) for _ in range(50)] + [50_000]

    for position, size in enumerate(sizes, 1):
        window.append([stored(position, size)], position)
        held = [server_sent_event(stored(at, sizes[at - 1])) for at in range(window.floor + 1, position + 1)]
        assert window.size == sum(map(len, held))
        assert window.size <= 20_000 or len(window) == 1

    assert len(window) == 1
    assert all_chunks(window, EVERYTHING, 50) == server_sent_event(stored(51, 50_000))
