"""The unit of work of an append: the states that it needs, with the changes made so far.

Every change is logged, so that a refused request can be rolled back without affecting the other requests of its group.
At the end the log of changes names what must be stored.
"""

from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from ledger.domain import money
from ledger.domain.budget_entry import Entry
from ledger.domain.campaign import CampaignState
from ledger.domain.content import ContentState
from ledger.domain.event import Candidate, Receipt, Recorded
from ledger.domain.holds import Holds
from ledger.domain.job import JobState
from ledger.domain.price import PriceState
from ledger.domain.price_book import PriceBook

STATE_TYPES = {"campaign": CampaignState, "content": ContentState, "job": JobState, "price": PriceState}

State = CampaignState | ContentState | JobState | PriceState

RELEASES_MAX = 500
"""The most holds of ended jobs that a group releases; the service releases the rest in later groups."""

COMPARISON_COST_MAX = 200_000
"""The largest cost of the objects of a request that are compared by value, about 0.2 s of processor time."""


class Head(NamedTuple):
    """Version and decision state of a campaign, content, job or price stream."""

    version: int
    state: State


class Account(msgspec.Struct, frozen=True, gc=False):
    """The balances of a campaign or a job. `limit` is None if a job has no budget."""

    currency: str
    limit: Decimal | None
    spent: Decimal = money.ZERO
    held: Decimal = money.ZERO

    @property
    def is_over(self) -> bool:
        """Whether spent and held money together exceed the limit."""
        if self.limit is None:
            return False
        return (money.add(self.spent, self.held) if self.held else self.spent) > self.limit


class Savepoint(NamedTuple):
    """The state to roll back to: lengths of the change log and of the recorded events, and the releases left."""

    changes: int
    events: int
    releases_left: int


class Denial(NamedTuple):
    """A `cost.denied` to be recorded after the events judged with it, with the campaign and job it counts for."""

    candidate: Candidate
    campaign_id: UUID | None
    agent_job_id: UUID | None


class RecordedIdentity(NamedTuple):
    """The content of an event in the log, to distinguish a retry from a conflict.

    `text` is None if there is none, or if it was erased (`erased`).
    """

    type: str
    data: str
    text: str | None
    erased: bool
    occurred_at: datetime
    correlation_id: UUID | None
    causation_id: UUID | None
    receipt: Receipt

    @classmethod
    def of(cls, recorded: Recorded) -> "RecordedIdentity":
        """Make the identity of an event that was just recorded."""
        return cls(
            recorded.type,
            recorded.data,
            recorded.text,
            False,
            recorded.occurred_at,
            recorded.correlation_id,
            recorded.causation_id,
            Receipt(recorded.id, recorded.stream_id, recorded.version, recorded.position, False, recorded.over_budget),
        )


class WorkingState:
    """The states of the streams, entries, accounts and holds that a group of requests touches."""

    def __init__(self, position: int, recorded_at: datetime) -> None:
        """Create an empty working state.

        Args:
            position: The position of the last event in the log.
            recorded_at: The time of this append, not before that of the last event.
        """
        self.position = position
        self.recorded_at = recorded_at
        # Events recorded here are kept as their rows: few of them are ever compared with a retry.
        self.identities: dict[tuple[str, UUID, UUID], RecordedIdentity | Recorded] = {}
        self.heads: dict[tuple[str, UUID], Head] = {}
        self.entries: dict[UUID, Entry] = {}
        self.accounts: dict[tuple[str, UUID], Account] = {}
        self.holds = Holds()
        self.prices = PriceBook()
        # Whether jobs that end may have more open holds than `holds` contains.
        self.has_unloaded_holds = False
        # Jobs that ended with more holds than the group could release, and the position of the event that ended each.
        self.pending_releases: dict[UUID, int] = {}
        self.releases_left = RELEASES_MAX
        # Versions of the streams of category `ledger`, which have no state.
        self.versions: dict[UUID, int] = {}
        # By position of an event that had free text: whether the text has not been erased yet.
        self.erasable: dict[int, bool] = {}
        self.events: list[Recorded] = []
        self.denials: dict[UUID, Denial] = {}
        # In microseconds: of all comparisons by value so far, and what the present request may still use.
        self.comparison_cost = 0
        self._comparison_cost_left = 0
        self._changes: list[tuple[dict[Any, Any], Any, Any]] = []

    def begin_request(self) -> None:
        """Begin to judge a request: it may use `COMPARISON_COST_MAX`."""
        self._comparison_cost_left = COMPARISON_COST_MAX

    def try_to_compare(self, cost: int) -> bool:
        """Count the cost of a comparison by value, in microseconds; False if the request has no more left."""
        if cost > self._comparison_cost_left:
            return False
        self._comparison_cost_left -= cost
        self.comparison_cost += cost
        return True

    def put(self, states: dict[Any, Any], key: Any, value: Any) -> None:
        """Change one state.

        Args:
            states: One of the dictionaries of this working state.
            key: The key of the state.
            value: The new state; None removes it.
        """
        self.replace(states, key, states.get(key), value)

    def replace(self, states: dict[Any, Any], key: Any, before: Any, value: Any) -> None:
        """Change one state whose present value is known: a look-up less than `put`.

        Args:
            states: One of the dictionaries of this working state.
            key: The key of the state.
            before: The present state; None if there is none.
            value: The new state; None removes it.
        """
        self._changes.append((states, key, before))
        if value is None:
            states.pop(key, None)
        else:
            states[key] = value

    def recorded_identity(self, identity: tuple[str, UUID, UUID]) -> RecordedIdentity:
        """Return the recorded event with this identity (see `Candidate.identity`)."""
        known = self.identities[identity]
        return RecordedIdentity.of(known) if isinstance(known, Recorded) else known

    def savepoint(self) -> Savepoint:
        """Return a savepoint for `roll_back`."""
        return Savepoint(len(self._changes), len(self.events), self.releases_left)

    def roll_back(self, savepoint: Savepoint) -> None:
        """Undo everything since the savepoint."""
        changes, events, self.releases_left = savepoint
        for states, key, before in reversed(self._changes[changes:]):
            if before is None:
                states.pop(key, None)
            else:
                states[key] = before
        del self._changes[changes:]
        for event in self.events[events:]:
            del self.identities[event.category, event.stream_id, event.id]
        self.position -= len(self.events) - events
        del self.events[events:]

    def begin_group(self) -> None:
        """Drop recorded events and the log of changes; states and identities stay. Invalidates all savepoints."""
        self.events.clear()
        self.denials.clear()
        self.pending_releases.clear()
        self.releases_left = RELEASES_MAX
        self._changes.clear()

    def forget_changes(self) -> None:
        """Begin a group, and drop identities too."""
        self.begin_group()
        self.identities.clear()

    def changed(self, *kinds: dict[Any, Any]) -> list[dict[Any, Any]]:
        """Return, for each of these dictionaries, its changed keys in order, with the state before the group."""
        changed: dict[int, dict[Any, Any]] = {id(states): {} for states in kinds}
        for states, key, before in self._changes:
            if (keys := changed.get(id(states))) is not None:
                keys.setdefault(key, before)
        return list(changed.values())

    def version(self, category: str, stream_id: UUID) -> int:
        """Return the version of a stream; 0 if it does not exist."""
        if category == "cost":
            entry = self.entries.get(stream_id)
            return entry.version if entry else 0
        if category == "ledger":
            return self.versions.get(stream_id, 0)
        head = self.heads.get((category, stream_id))
        return head.version if head else 0

    def record_denial(self, denial: Denial) -> None:
        """Record a denial. Its entry shows later groups that the denial is in the log already."""
        receipt = self.record(denial.candidate, denial.campaign_id, denial.agent_job_id)
        entry = Entry("denied", receipt.version, denial.campaign_id, denial.agent_job_id)
        self.put(self.entries, denial.candidate.stream_id, entry)

    def record(
        self,
        candidate: Candidate,
        campaign_id: UUID | None,
        agent_job_id: UUID | None,
        over_budget: list[str] | None = None,
    ) -> Receipt:
        """Assign the next position and version to an accepted event. Call this before its new state is put.

        Args:
            candidate: The event.
            campaign_id: The campaign that it counts for; None if none.
            agent_job_id: The job that it counts for; None if none.
            over_budget: The scopes whose limits are exceeded after it; None if none.

        Returns:
            The receipt of the event.
        """
        event_type = candidate.event_type
        version = self.version(event_type.category, candidate.stream_id) + 1
        self.position += 1
        # By position: naming twenty fields takes three times as long.
        recorded = Recorded(
            self.position,
            event_type.category,
            candidate.stream_id,
            version,
            candidate.id,
            event_type.name,
            candidate.schema_version,
            candidate.occurred_at or self.recorded_at,
            self.recorded_at,
            candidate.actor,
            campaign_id,
            agent_job_id,
            candidate.correlation_id,
            candidate.causation_id,
            candidate.data,
            candidate.text,
            candidate.text_salt,
            candidate.text_commitment,
            over_budget,
            len(candidate.data) + len(candidate.text or ""),
        )
        self.events.append(recorded)
        self.identities[candidate.identity] = recorded
        return Receipt(candidate.id, candidate.stream_id, version, self.position, False, over_budget)
