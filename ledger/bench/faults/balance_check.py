"""Computes balances from the events alone, without the service's code, and finds overspending holds."""

from collections import defaultdict
from decimal import Decimal
from typing import Any
from uuid import UUID


class BalanceCheck:
    """The amount spent and held of each campaign and job, with the jobs below it."""

    def __init__(self) -> None:
        self._parents: dict[UUID, UUID] = {}
        self.used: defaultdict[UUID, Decimal] = defaultdict(Decimal)
        self.limits: dict[UUID, Decimal] = {}
        self._amount_of_entry: dict[UUID, Decimal] = {}

    def apply(self, type_: str, stream_id: UUID, data: dict[str, Any], account_ids: list[UUID]) -> list[str]:
        """Add an event to the balances.

        Args:
            type_: of the event.
            stream_id: of the event.
            data: of the event.
            account_ids: the campaign and the job that it counts towards.

        Returns:
            a violation for each limit that it exceeds. A hold must not exceed a limit; a recorded cost may.
        """
        if type_ in ("campaign.created", "campaign.budget_changed", "job.queued"):
            if (parent_id := data.get("parent_job_id")) is not None:
                self._parents[stream_id] = UUID(parent_id)
            if (limit := data.get("budget")) is not None:
                self.limits[stream_id] = Decimal(limit)
            return []
        before = self._amount_of_entry.get(stream_id, Decimal(0))
        match type_:
            case "cost.recorded" | "cost.settled":
                after = Decimal(data["cost"])
            case "cost.reserved":
                after = Decimal(data["amount"])
            case "cost.credited":
                after = -Decimal(data["amount"])
            case "cost.adjusted":
                after = before + Decimal(data["amount"])
            case "cost.released" | "cost.expired":
                after = Decimal(0)
            case _:
                return []
        self._amount_of_entry[stream_id] = after
        violations = []
        for account_id in self._with_ancestors(account_ids):
            self.used[account_id] += after - before
            limit = self.limits.get(account_id)
            if type_ == "cost.reserved" and limit is not None and self.used[account_id] > limit:
                violations.append(
                    f"a hold of {after} brought {account_id} to {self.used[account_id]}, over its limit of {limit}"
                )
        return violations

    def _with_ancestors(self, account_ids: list[UUID]) -> list[UUID]:
        """Return accounts and those of all jobs above them."""
        ancestors = []
        for account_id in account_ids:
            while (parent_id := self._parents.get(account_id)) is not None:
                ancestors.append(parent_id)
                account_id = parent_id
        return account_ids + ancestors
