"""What the clients know: every id they have sent, and every receipt they were given. The log is held against it."""

from collections import Counter
from typing import Any
from uuid import UUID

import msgspec


class Acknowledged(msgspec.Struct, frozen=True):
    """An event of which the service said that it is recorded."""

    id: UUID
    stream_id: UUID
    version: int
    position: int
    over_budget: tuple[str, ...] = ()


class Witness:
    """The clients' common memory."""

    def __init__(self) -> None:
        self.batch_of: dict[UUID, int] = {}
        self.batches: dict[int, int] = {}
        self.acknowledged: dict[UUID, Acknowledged] = {}
        self.refused: set[UUID] = set()
        self.answers: Counter[int] = Counter()
        self.sent_again = 0
        self.violations: list[str] = []
        self._unchecked: list[Acknowledged] = []

    def sends(self, ids: list[UUID], *, together: bool) -> None:
        """Somebody is about to send these events; `together`: all of them or none."""
        for part in [ids] if together else [[each] for each in ids]:
            number = len(self.batches)
            self.batches[number] = len(part)
            self.batch_of.update(dict.fromkeys(part, number))

    def hears(self, receipt: dict[str, Any]) -> Acknowledged:
        """Somebody was given a receipt: the first for this event, or one that must say what the first said."""
        said = Acknowledged(
            UUID(receipt["id"]),
            UUID(receipt["stream_id"]),
            receipt["version"],
            receipt["position"],
            tuple(receipt.get("over_budget") or ()),
        )
        first = self.acknowledged.setdefault(said.id, said)
        if first is said:
            self._unchecked.append(said)
        elif first != said:
            self.violations.append(f"receipts of one event differ: {first} and later {said}")
        return said

    def take_unchecked(self) -> list[Acknowledged]:
        """What was acknowledged since the last time."""
        taken, self._unchecked = self._unchecked, []
        return taken
