"""Checks that use only the log: positions without gaps, and balances summed from the events."""

import json
from collections import defaultdict
from decimal import Decimal, localcontext
from typing import Any

from ledger.domain.event import Recorded
from tests.domain.model import EXACT

Scope = tuple[str, Any]


class Auditor:
    """Reads recorded events in order; an assertion fails if one of them should not have been recorded."""

    def __init__(self) -> None:
        self.position = 0
        self.recorded_at: Any = None
        self.versions: dict[Any, int] = defaultdict(int)
        self.identities: set[Any] = set()
        self.limits: dict[Scope, Decimal | None] = {}
        self.spent: dict[Scope, Decimal] = defaultdict(Decimal)
        self.held: dict[Scope, Decimal] = defaultdict(Decimal)
        self.costs: dict[Any, Decimal] = defaultdict(Decimal)
        self.credits: set[Any] = set()
        self.holds: dict[Any, Decimal] = {}
        self.parents: dict[Any, Any] = {}

    def read(self, event: Recorded) -> None:
        """Check one event and add it to the balances."""
        stream, identity = (event.category, event.stream_id), (event.category, event.stream_id, event.id)
        self.position += 1
        self.versions[stream] += 1
        assert event.position == self.position
        assert event.version == self.versions[stream]
        assert self.recorded_at is None or event.recorded_at >= self.recorded_at
        assert identity not in self.identities
        self.identities.add(identity)
        self.recorded_at = event.recorded_at

        data = json.loads(event.data)
        if "budget" in data or event.type in ("job.queued", "job.recorded"):
            limit = data.get("budget")
            self.limits[stream] = None if limit is None else Decimal(limit)
        assert stream in self.limits or event.category != "campaign", (
            "a campaign's budget is written even if it is null"
        )
        if data.get("parent_job_id") is not None:
            self.parents[event.stream_id] = type(event.stream_id)(data["parent_job_id"])
        if event.category == "cost" and event.type != "cost.denied":
            with localcontext(EXACT):
                self._count(event, data)

    def _count(self, event: Recorded, data: dict[str, Any]) -> None:
        entry = event.stream_id
        if event.type == "cost.extended":
            assert entry in self.holds
            return
        cost, held = self.costs[entry], self.holds.pop(entry, Decimal(0))
        if event.type == "cost.adjusted":
            self.costs[entry] += Decimal(data["amount"])
        elif event.type in ("cost.recorded", "cost.settled"):
            # Without a price, the cost is not known yet.
            self.costs[entry] = Decimal(data.get("cost", "0"))
        elif event.type == "cost.credited":
            self.costs[entry] = -Decimal(data["amount"])
            self.credits.add(entry)
        elif event.type == "cost.reserved":
            self.holds[entry] = Decimal(data["amount"])
        assert self.costs[entry] <= 0 if entry in self.credits else self.costs[entry] >= 0
        for scope in (("campaign", event.campaign_id), *(("job", job_id) for job_id in self._lineage(event))):
            if scope[1] is None:
                continue
            self.spent[scope] += self.costs[entry] - cost
            self.held[scope] += self.holds.get(entry, Decimal(0)) - held
            limit, taken = self.limits[scope], self.spent[scope] + self.held[scope]
            assert event.type != "cost.reserved" or limit is None or taken <= limit

    def _lineage(self, event: Recorded) -> list[Any]:
        """Return the job of an event and all jobs above it."""
        jobs = [event.agent_job_id]
        while jobs[-1] in self.parents:
            jobs.append(self.parents[jobs[-1]])
        return jobs
