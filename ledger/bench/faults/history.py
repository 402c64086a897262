"""The history of the clients: each event id sent and each receipt received, for the checker."""

from collections import Counter
from typing import Any
from uuid import UUID

import msgspec


class AcknowledgedEvent(msgspec.Struct, frozen=True):
    """An event that the service reported as recorded."""

    id: UUID
    stream_id: UUID
    version: int
    position: int
    over_budget: tuple[str, ...] = ()


class History:
    """What all clients sent and what was answered, in one place."""

    def __init__(self) -> None:
        self.batch_of_event: dict[UUID, int] = {}
        self.batch_sizes: dict[int, int] = {}
        self.acknowledged: dict[UUID, AcknowledgedEvent] = {}
        self.refused: set[UUID] = set()
        self.statuses: Counter[int] = Counter()
        self.retries = 0
        self.violations: list[str] = []
        self._unchecked: list[AcknowledgedEvent] = []

    def record_sent(self, event_ids: list[UUID], *, atomic: bool) -> None:
        """Record events that are about to be sent; `atomic`: all of them must be recorded, or none."""
        for batch in [event_ids] if atomic else [[event_id] for event_id in event_ids]:
            number = len(self.batch_sizes)
            self.batch_sizes[number] = len(batch)
            self.batch_of_event.update(dict.fromkeys(batch, number))

    def record_receipt(self, receipt: dict[str, Any]) -> AcknowledgedEvent:
        """Record a receipt; it is a violation if an earlier receipt of the same event differs."""
        event = AcknowledgedEvent(
            UUID(receipt["id"]),
            UUID(receipt["stream_id"]),
            receipt["version"],
            receipt["position"],
            tuple(receipt.get("over_budget") or ()),
        )
        first = self.acknowledged.setdefault(event.id, event)
        if first is event:
            self._unchecked.append(event)
        elif first != event:
            self.violations.append(f"receipts of one event differ: {first} and later {event}")
        return event

    def take_unchecked(self) -> list[AcknowledgedEvent]:
        """Return the events acknowledged since the last call."""
        taken, self._unchecked = self._unchecked, []
        return taken
