"""Recent events in memory for event streams, each encoded once; at most 10,000 events or 16 MiB."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from ledger.log.event_view import view
from ledger.log.read import EventFilter, StoredEvent

RECENT_EVENTS_MAX = 10_000
RECENT_BYTES_MAX = 16 * 1024 * 1024
"""Over either limit, the oldest events are dropped; the newest event stays, however large."""

CHUNK_BYTES = 64 * 1024
CHUNK_EVENTS_MAX = 1_000
"""A subscriber takes about this many bytes, from at most this many events, before others get their turn."""


class Chunk(NamedTuple):
    """The next events of a subscriber as Server-Sent Events, and the position up to which it has now seen the log."""

    frames: bytes
    position: int


class _Item(NamedTuple):
    """An event without its data, for filters, and its Server-Sent Event."""

    event: StoredEvent
    frame: bytes


def server_sent_event(event: StoredEvent) -> bytes:
    """Encode an event as a Server-Sent Event (WHATWG HTML, section 9.2).

    Canonical JSON has no line breaks, so the data is one line.
    """
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (
        event.position,
        event.type.encode(),
        msgspec.json.encode(view(event)),
    )


class RecentEvents:
    """Every event after position `floor` up to `head`, by position: positions have no gaps, so no search is needed."""

    def __init__(self, position: int) -> None:
        """Make an empty window that continues after this position."""
        self.floor = position
        self.head = position
        self.size = 0
        self._items: dict[int, _Item] = {}

    def __len__(self) -> int:
        return len(self._items)

    def append(self, page: Sequence[StoredEvent], head: int) -> None:
        """Add the next events, which are all events of the log up to `head`."""
        items = [_Item(msgspec.structs.replace(event, data="", text=None), server_sent_event(event)) for event in page]
        self._items.update((item.event.position, item) for item in items)
        self.size += sum(len(item.frame) for item in items)
        self.head = head
        while len(self) > RECENT_EVENTS_MAX or (self.size > RECENT_BYTES_MAX and len(self) > 1):
            self.floor += 1
            oldest = self._items.pop(self.floor, None)
            self.size -= len(oldest.frame) if oldest else 0

    def next_chunk(self, event_filter: EventFilter, after: int) -> Chunk:
        """Return the next events after a position that is not below `floor`."""
        assert after >= self.floor
        frames: list[bytes] = []
        size = 0
        position = after
        for position in range(after + 1, min(self.head, after + CHUNK_EVENTS_MAX) + 1):
            item = self._items.get(position)
            if item is not None and event_filter.matches(item.event):
                frames.append(item.frame)
                size += len(item.frame)
                if size >= CHUNK_BYTES:
                    break
        return Chunk(b"".join(frames), position)
