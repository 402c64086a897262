"""Money, counted once more from the events alone, by other code than the service's: does a hold ever break a limit?"""

from collections import defaultdict
from decimal import Decimal
from typing import Any
from uuid import UUID


class Balances:
    """What is spent and held together of each campaign and job."""

    def __init__(self) -> None:
        self.used: defaultdict[UUID, Decimal] = defaultdict(Decimal)
        self.limits: dict[UUID, Decimal] = {}
        self._of_entry: dict[UUID, Decimal] = {}

    def apply(self, type_: str, stream_id: UUID, data: dict[str, Any], concerns: list[UUID]) -> list[str]:
        """Count an event.

        Args:
            concerns: the campaign and the job that it counts for.

        Returns:
            each limit that it breaks; facts may pass a limit, promises may not.
        """
        if type_ in ("campaign.created", "campaign.budget_changed", "job.queued"):
            if (limit := data.get("budget")) is not None:
                self.limits[stream_id] = Decimal(limit)
            return []
        before = self._of_entry.get(stream_id, Decimal(0))
        match type_:
            case "cost.recorded" | "cost.settled":
                after = Decimal(data["cost"])
            case "cost.reserved":
                after = Decimal(data["amount"])
            case "cost.adjusted":
                after = before + Decimal(data["amount"])
            case "cost.released" | "cost.expired":
                after = Decimal(0)
            case _:
                return []
        self._of_entry[stream_id] = after
        broken = []
        for account in concerns:
            self.used[account] += after - before
            limit = self.limits.get(account)
            if type_ == "cost.reserved" and limit is not None and self.used[account] > limit:
                broken.append(f"a hold of {after} brought {account} to {self.used[account]}, the limit is {limit}")
        return broken
