"""The checker: after each fault, compares new events with the history, and balances with the events.

Finds lost, doubled and forged events, gaps in positions and versions, partial batches and overspending.
"""

from collections import Counter, deque
from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from ledger.bench.faults.balance_check import BalanceCheck
from ledger.bench.faults.history import AcknowledgedEvent, History
from ledger.database import Connection
from ledger.domain.service_events import SERVICE

PAGE_EVENTS = 5_000

RECENT_EVENTS = 2_000
"""Events already checked whose ids are compared again: an outage that loses events loses the last ones."""

VIOLATIONS_SHOWN_MAX = 10

EVENTS = """
SELECT position, category, stream_id, version, id, type, recorded_at, actor, campaign_id, agent_job_id, data::text
FROM ledger.events WHERE position > $1 ORDER BY position LIMIT $2
"""

IDS = "SELECT position, id FROM ledger.events WHERE position > $1 AND position <= $2 ORDER BY position"

HEAD = "SELECT position FROM ledger.log_head"

ACCOUNTS = "SELECT account_id, spent + held AS used FROM ledger.accounts WHERE account_id = ANY ($1)"

REFUSAL = "SELECT refusal FROM ledger.log_checkpoint"


class Checker:
    """Checks the log incrementally; a new checker begins with the first event."""

    def __init__(self, history: History) -> None:
        self.position = 0
        self._history = history
        self._balances = BalanceCheck()
        self._recorded_at: datetime | None = None
        self._versions: dict[tuple[str, UUID], int] = {}
        self._events: dict[UUID, AcknowledgedEvent] = {}
        self._recent: deque[tuple[int, UUID]] = deque(maxlen=RECENT_EVENTS)
        self._batch_events: Counter[int] = Counter()

    async def violations(self, connection: Connection, acknowledged: list[AcknowledgedEvent]) -> list[str]:
        """Check the events that are new since the last call, in one snapshot.

        Args:
            connection: to the database.
            acknowledged: events that the log must hold; taken from the history before this call.

        Returns:
            the violations, at most VIOLATIONS_SHOWN_MAX of them and a count of the rest.
        """
        account_ids: set[UUID] = set()
        batches: set[int] = set()
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            violations = await self._check_recent(connection)
            while rows := await connection.fetch(EVENTS, self.position, PAGE_EVENTS):
                for row in rows:
                    violations += self._check_event(row, account_ids, batches)
            violations += await self._check_state(connection, account_ids)
        violations += self._check_batches(batches)
        violations += self._check_acknowledged(acknowledged)
        hidden = len(violations) - VIOLATIONS_SHOWN_MAX
        return violations if hidden <= 0 else [*violations[:VIOLATIONS_SHOWN_MAX], f"and {hidden} more"]

    async def _check_recent(self, connection: Connection) -> list[str]:
        """Check that the events checked last are still in the log, and no others among them."""
        if not self._recent:
            return []
        rows = await connection.fetch(IDS, self._recent[0][0] - 1, self.position)
        current = [(row["position"], row["id"]) for row in rows]
        if current == list(self._recent):
            return []
        missing = sorted(set(self._recent) - set(current))
        return [f"the event at position {position} has disappeared" for position, _ in missing] or [
            "new events have appeared among those already checked"
        ]

    async def _check_state(self, connection: Connection, account_ids: set[UUID]) -> list[str]:
        """Check the log head, the balances of these accounts, and the sealer."""
        violations = []
        if await connection.fetchval(HEAD) != self.position:
            violations.append(f"the log head is not at the last event, {self.position}")
        for row in await connection.fetch(ACCOUNTS, list(account_ids)):
            computed = self._balances.used[row["account_id"]]
            if row["used"] != computed:
                violations.append(
                    f"the balance of {row['account_id']} is {row['used']}, but the events give {computed}"
                )
        if refusal := await connection.fetchval(REFUSAL):
            violations.append(f"the sealer refuses to seal: {refusal}")
        return violations

    def _check_batches(self, batches: set[int]) -> list[str]:
        sizes = self._history.batch_sizes
        return [
            f"of a batch of {sizes[number]} events, {self._batch_events[number]} are in the log"
            for number in batches
            if self._batch_events[number] != sizes[number]
        ]

    def _check_event(self, row: asyncpg.Record, account_ids: set[UUID], batches: set[int]) -> list[str]:
        """Check an event against its predecessors and the history; add its accounts and its batch to the sets."""
        position, category, stream_id, version, event_id, type_, recorded_at, actor, campaign_id, job_id, data = row
        violations = []
        if position != self.position + 1:
            violations.append(f"it follows position {self.position}")
        previous = self._versions.get((category, stream_id), 0)
        if version != previous + 1:
            violations.append(f"version {version} of {category} stream {stream_id} follows version {previous}")
        if self._recorded_at is not None and recorded_at < self._recorded_at:
            violations.append(f"it was recorded at {recorded_at}, before its predecessor")
        if event_id in self._events:
            violations.append(f"event {event_id} is also at position {self._events[event_id].position}")
        if actor != SERVICE:
            violations += self._check_sent(event_id, batches)
        accounts = [each for each in (campaign_id, job_id) if each is not None and category == "cost"]
        account_ids.update(accounts)
        violations += self._balances.apply(type_, stream_id, msgspec.json.decode(data), accounts)
        self.position, self._recorded_at = position, recorded_at
        self._versions[category, stream_id] = version
        self._events[event_id] = AcknowledgedEvent(event_id, stream_id, version, position)
        self._recent.append((position, event_id))
        return [f"position {position}: {violation}" for violation in violations]

    def _check_sent(self, event_id: UUID, batches: set[int]) -> list[str]:
        violations = []
        number = self._history.batch_of_event.get(event_id)
        if number is None:
            violations.append(f"no client has sent event {event_id}")
        else:
            self._batch_events[number] += 1
            batches.add(number)
        if event_id in self._history.refused:
            violations.append(f"event {event_id} was refused")
        return violations

    def _check_acknowledged(self, acknowledged: list[AcknowledgedEvent]) -> list[str]:
        violations = []
        for receipt in acknowledged:
            event = self._events.get(receipt.id)
            if event is None:
                violations.append(f"event {receipt.id} was acknowledged at position {receipt.position}, but is missing")
            elif event != msgspec.structs.replace(receipt, over_budget=()):
                violations.append(f"the receipt is {receipt}, but the log has {event}")
        return violations
