"""The newest events in memory, each encoded once, for all who listen; bounded in number and in bytes."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from ledger.log.read import EventFilter, StoredEvent, view

WINDOW_EVENTS_MAX = 10_000
WINDOW_BYTES_MAX = 16 * 1024 * 1024
"""Past either the oldest are let go; the newest event stays, however large."""

PART_BYTES = 64 * 1024
PART_EVENTS_MAX = 1_000
"""A listener looks through so many events at a time, and takes about so much, before it is another's turn."""


class Part(NamedTuple):
    """The next events of a listener as Server-Sent Events; `position` is how far it has come with them."""

    frames: bytes
    position: int


class Item(NamedTuple):
    """An event without its data, to be filtered by, and its frame."""

    event: StoredEvent
    frame: bytes


def frame(event: StoredEvent) -> bytes:
    """An event as a Server-Sent Event.

    JSON in its canonical form has no line breaks, so that the data is one line. Format: WHATWG HTML, section 9.2.
    """
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (
        event.position,
        event.type.encode(),
        msgspec.json.encode(view(event)),
    )


class RecentEvents:
    """Every event after `floor` up to `head`, by position: nobody has to search, since positions have no gaps."""

    def __init__(self, position: int) -> None:
        """Make a window that is empty and continues after this position."""
        self.floor = position
        self.head = position
        self.size = 0
        self._items: dict[int, Item] = {}

    def __len__(self) -> int:
        return len(self._items)

    def grow(self, page: Sequence[StoredEvent], head: int) -> None:
        """Add the next events; the log has no others up to `head`."""
        items = [Item(msgspec.structs.replace(event, data="", text=None), frame(event)) for event in page]
        self._items.update((item.event.position, item) for item in items)
        self.size += sum(len(item.frame) for item in items)
        self.head = head
        while len(self) > WINDOW_EVENTS_MAX or (self.size > WINDOW_BYTES_MAX and len(self) > 1):
            self.floor += 1
            oldest = self._items.pop(self.floor, None)
            self.size -= len(oldest.frame) if oldest else 0

    def part(self, wanted: EventFilter, after: int) -> Part:
        """The next events after a position that is not below the floor."""
        assert after >= self.floor
        frames: list[bytes] = []
        size = 0
        position = after
        for position in range(after + 1, min(self.head, after + PART_EVENTS_MAX) + 1):
            item = self._items.get(position)
            if item is not None and wanted.matches(item.event):
                frames.append(item.frame)
                size += len(item.frame)
                if size >= PART_BYTES:
                    break
        return Part(b"".join(frames), position)
