"""What an append is judged by: the states loaded under the lock, and the changes made to them so far.

Every change is logged, so that a refused request is undone without harming its neighbours in the group, and the
log says in the end what must be stored.
"""

from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from ledger.domain import money
from ledger.domain.campaign import CampaignState
from ledger.domain.content import ContentState
from ledger.domain.cost import Entry
from ledger.domain.event import Candidate, Receipt, Recorded
from ledger.domain.job import JobState

type_of_state = {"campaign": CampaignState, "content": ContentState, "job": JobState}

State = CampaignState | ContentState | JobState


class Head(NamedTuple):
    """Version and decision state of a campaign, content or job stream."""

    version: int
    state: State


class Account(msgspec.Struct, frozen=True, gc=False):
    """Balances of a campaign or a job. `limit` is None for a job without a cap."""

    currency: str
    limit: Decimal | None
    spent: Decimal = money.ZERO
    held: Decimal = money.ZERO

    @property
    def is_over(self) -> bool:
        """Whether more is spent and promised than the limit allows."""
        return self.limit is not None and money.add(self.spent, self.held) > self.limit


class Hold(NamedTuple):
    """An open hold, by the id of its entry's stream."""

    amount: Decimal
    campaign_id: UUID | None
    agent_job_id: UUID | None
    expires_at: datetime


class Denial(NamedTuple):
    """A `cost.denied` to be recorded after everything else of the group, and what it counts for."""

    candidate: Candidate
    campaign_id: UUID | None
    agent_job_id: UUID | None


class RecordedIdentity(NamedTuple):
    """An event that the log holds already, to tell a repeat from a conflict.

    `text` is None where there is none or where it was erased; `erased` tells which.
    """

    type: str
    data: str
    text: str | None
    erased: bool
    occurred_at: datetime
    correlation_id: UUID | None
    causation_id: UUID | None
    receipt: Receipt

    def is_same(self, candidate: Candidate) -> bool:
        """Whether the content is the same; times and ids count only where they were sent."""
        return (
            self.type == candidate.event_type.name
            and self.data == candidate.data
            and (self.erased or self.text == candidate.text)
            and candidate.occurred_at in (None, self.occurred_at)
            and candidate.correlation_id in (None, self.correlation_id)
            and candidate.causation_id in (None, self.causation_id)
        )


class WorkingState:
    """The states of the streams, entries, accounts and holds that a group of requests touches."""

    def __init__(self, position: int, recorded_at: datetime) -> None:
        """Open the working_state.

        Args:
            position: of the last event in the log.
            recorded_at: the time of this append, not before that of the last one.
        """
        self.position = position
        self.recorded_at = recorded_at
        self.identities: dict[tuple[str, UUID, UUID], RecordedIdentity] = {}
        self.heads: dict[tuple[str, UUID], Head] = {}
        self.entries: dict[UUID, Entry] = {}
        self.accounts: dict[tuple[str, UUID], Account] = {}
        self.holds: dict[UUID, Hold] = {}
        # Of streams of the category `ledger`, which have no state.
        self.versions: dict[UUID, int] = {}
        # By position, of events that had free text: whether it is still there.
        self.erasable: dict[int, bool] = {}
        self.events: list[Recorded] = []
        self.denials: dict[UUID, Denial] = {}
        self._changes: list[tuple[dict[Any, Any], Any, Any]] = []

    def put(self, states: dict[Any, Any], key: Any, value: Any) -> None:
        """Set one state of this working_state; None takes it away."""
        self._changes.append((states, key, states.get(key)))
        if value is None:
            states.pop(key, None)
        else:
            states[key] = value

    def mark(self) -> tuple[int, int]:
        """A point to come back to with `undo`."""
        return len(self._changes), len(self.events)

    def undo(self, mark: tuple[int, int]) -> None:
        """Take back everything since the mark."""
        changes, events = mark
        for states, key, before in reversed(self._changes[changes:]):
            if before is None:
                states.pop(key, None)
            else:
                states[key] = before
        del self._changes[changes:]
        self.position -= len(self.events) - events
        del self.events[events:]

    def forget_changes(self) -> None:
        """Let go of what was recorded and changed so far; the states stay. No mark outlives it."""
        self.identities.clear()
        self.events.clear()
        self._changes.clear()

    def changed(self, *kinds: dict[Any, Any]) -> list[list[Any]]:
        """The keys that were set or taken away in each of these kinds of states, each key once, in order."""
        keys: dict[int, dict[Any, None]] = {id(states): {} for states in kinds}
        for states, key, _ in self._changes:
            if (found := keys.get(id(states))) is not None:
                found[key] = None
        return [list(found) for found in keys.values()]

    def version(self, category: str, stream_id: UUID) -> int:
        """The stream's version; 0 where it does not exist."""
        if category == "cost":
            entry = self.entries.get(stream_id)
            return entry.version if entry else 0
        if category == "ledger":
            return self.versions.get(stream_id, 0)
        head = self.heads.get((category, stream_id))
        return head.version if head else 0

    def record(
        self,
        candidate: Candidate,
        campaign_id: UUID | None,
        agent_job_id: UUID | None,
        over_budget: list[str] | None = None,
    ) -> Receipt:
        """Give an accepted event its place in the log and in its stream. Call before its state is put."""
        event_type = candidate.event_type
        version = self.version(event_type.category, candidate.stream_id) + 1
        self.position += 1
        receipt = Receipt(candidate.id, candidate.stream_id, version, self.position, False, over_budget)
        occurred_at = candidate.occurred_at or self.recorded_at
        self.events.append(
            Recorded(
                position=self.position,
                category=event_type.category,
                stream_id=candidate.stream_id,
                version=version,
                id=candidate.id,
                type=event_type.name,
                schema_version=event_type.schema_version,
                occurred_at=occurred_at,
                recorded_at=self.recorded_at,
                actor=candidate.actor,
                campaign_id=campaign_id,
                agent_job_id=agent_job_id,
                correlation_id=candidate.correlation_id,
                causation_id=candidate.causation_id,
                data=candidate.data,
                text=candidate.text,
                text_salt=candidate.text_salt,
                text_commitment=candidate.text_commitment,
                over_budget=over_budget,
                size=len(candidate.data) + len(candidate.text or ""),
            )
        )
        known = RecordedIdentity(
            event_type.name,
            candidate.data,
            candidate.text,
            False,
            occurred_at,
            candidate.correlation_id,
            candidate.causation_id,
            receipt,
        )
        # The log did not hold it: there is nothing to come back to.
        identity = candidate.identity
        self._changes.append((self.identities, identity, None))
        self.identities[identity] = known
        return receipt
