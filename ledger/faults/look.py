"""The look at the log after each fault: from where the last look ended, every event against what the clients know."""

from collections import Counter, deque
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from ledger.database import Connection
from ledger.domain.judge import SERVICE
from ledger.faults.balances import Balances
from ledger.faults.witness import Acknowledged, Witness

if TYPE_CHECKING:
    from datetime import datetime

    import asyncpg

    Connection = Connection

PAGE_EVENTS = 5_000
KEPT_EVENTS = 2_000
"""So many of the events that were seen are looked at again: an outage that takes anything back takes the last."""

SHOWN_MAX = 10

EVENTS = """
SELECT position, category, stream_id, version, id, type, recorded_at, actor, campaign_id, agent_job_id, data::text
FROM ledger.events WHERE position > $1 ORDER BY position LIMIT $2
"""

IDS = "SELECT position, id FROM ledger.events WHERE position > $1 AND position <= $2 ORDER BY position"

HEAD = "SELECT position FROM ledger.log_head"

ACCOUNTS = "SELECT account_id, spent + held AS used FROM ledger.accounts WHERE account_id = ANY ($1)"

REFUSAL = "SELECT refusal FROM ledger.log_checkpoint"


class Look:
    """Looks at the log again and again. A new one begins with the first event."""

    def __init__(self, witness: Witness) -> None:
        self.position = 0
        self._witness = witness
        self._balances = Balances()
        self._recorded_at: datetime | None = None
        self._versions: dict[tuple[str, UUID], int] = {}
        self._seen: dict[UUID, Acknowledged] = {}
        self._kept: deque[tuple[int, UUID]] = deque(maxlen=KEPT_EVENTS)
        self._whole: Counter[int] = Counter()

    async def violations(self, connection: Connection, acknowledged: list[Acknowledged]) -> list[str]:
        """What does not hold in the log as it is now.

        Args:
            acknowledged: what must be in it; taken before this is called.
        """
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            found = await self._look_again(connection)
            touched: set[UUID] = set()
            batches: set[int] = set()
            while rows := await connection.fetch(EVENTS, self.position, PAGE_EVENTS):
                for row in rows:
                    found += self._look_at(row, touched, batches)
            if await connection.fetchval(HEAD) != self.position:
                found.append(f"the log's head is not at its last event, {self.position}")
            for row in await connection.fetch(ACCOUNTS, list(touched)):
                counted = self._balances.used[row["account_id"]]
                if row["used"] != counted:
                    found.append(f"the balance of {row['account_id']} is {row['used']}, the events give {counted}")
            if refusal := await connection.fetchval(REFUSAL):
                found.append(f"the sealer refuses: {refusal}")
        for number in batches:
            if self._whole[number] != self._witness.batches[number]:
                size = self._witness.batches[number]
                found.append(f"of a batch of {size} events {self._whole[number]} are in the log")
        found += self._look_for(acknowledged)
        return found if len(found) <= SHOWN_MAX else [*found[:SHOWN_MAX], f"and {len(found) - SHOWN_MAX} more"]

    async def _look_again(self, connection: Connection) -> list[str]:
        """Whether the last events that were seen are still there, and the same."""
        if not self._kept:
            return []
        rows = await connection.fetch(IDS, self._kept[0][0] - 1, self.position)
        now = [(row["position"], row["id"]) for row in rows]
        if now == list(self._kept):
            return []
        return [f"what was at position {position} is gone" for position, _ in sorted(set(self._kept) - set(now))] or [
            "there are events that were not there before, among those that were seen"
        ]

    def _look_at(self, row: "asyncpg.Record", touched: set[UUID], batches: set[int]) -> list[str]:
        position, category, stream_id, version, event_id, type_, recorded_at, actor, campaign_id, job_id, data = row
        found = []
        if position != self.position + 1:
            found.append(f"position {position} comes after {self.position}")
        before = self._versions.get((category, stream_id), 0)
        if version != before + 1:
            found.append(f"position {position}: version {version} of {category} stream {stream_id} follows {before}")
        if self._recorded_at is not None and recorded_at < self._recorded_at:
            found.append(f"position {position} was recorded at {recorded_at}, before its predecessor")
        if event_id in self._seen:
            found.append(f"position {position}: event {event_id} is also at {self._seen[event_id].position}")
        if actor != SERVICE:
            number = self._witness.batch_of.get(event_id)
            if number is None:
                found.append(f"position {position}: nobody has sent event {event_id}")
            else:
                self._whole[number] += 1
                batches.add(number)
            if event_id in self._witness.refused:
                found.append(f"position {position}: event {event_id} was refused")
        concerns = [each for each in (campaign_id, job_id) if each is not None and category == "cost"]
        touched.update(concerns)
        broken = self._balances.apply(type_, stream_id, msgspec.json.decode(data), concerns)
        found += [f"position {position}: {each}" for each in broken]
        self.position, self._recorded_at = position, recorded_at
        self._versions[category, stream_id] = version
        self._seen[event_id] = Acknowledged(event_id, stream_id, version, position)
        self._kept.append((position, event_id))
        return found

    def _look_for(self, acknowledged: list[Acknowledged]) -> list[str]:
        found = []
        for receipt in acknowledged:
            seen = self._seen.get(receipt.id)
            if seen is None:
                found.append(f"event {receipt.id} was acknowledged at position {receipt.position}, and is not there")
            elif seen != msgspec.structs.replace(receipt, over_budget=()):
                found.append(f"the receipt says {receipt}, the log {seen}")
        return found
