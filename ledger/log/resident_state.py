"""The working state that stays in memory between groups (resident): streams, entries, identities.

A group loads only what is not resident. Resident states are newer than anything that a load can return, since they
include the group that is being written; so a loaded row counts only if its stream is not resident. Past `STATES_MAX`
the whole state is dropped and a new one begun, which is simpler than evicting states one by one.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC
from typing import NamedTuple
from uuid import UUID

from ledger.domain.event import Candidate, Request
from ledger.domain.holds import Hold
from ledger.domain.price_book import PriceBook
from ledger.domain.working_state import RELEASES_MAX, Account, Denial, WorkingState
from ledger.domain.working_state import Head as StreamHead
from ledger.log.entry_states import EntryEvent, StoredEntry, decode, fold_events
from ledger.log.load import STATE_DECODERS, Head, Loaded, Needed, by_stream

STATES_MAX = 40_000
"""The most resident streams and entries."""

IDENTITIES_KEPT = 4_000
"""About this many identities of recent events stay resident, so that quick retries are recognised without a load."""

IDENTITY_CHARACTERS_MAX = 16 * 1024 * 1024
"""Fewer stay if their data and texts together are larger."""

CANDIDATES_MAX = 1_000
"""The most candidates examined without a pause for the event loop."""

ROWS_MAX = 1_000
"""If more rows are merged, there is a pause for the event loop after each kind of row."""

Identity = tuple[str, UUID, UUID]


class _Resident(NamedTuple):
    """A resident identity: the position and the size of its event."""

    position: int
    identity: Identity
    characters: int


class ResidentState(WorkingState):
    """A working state that knows which streams and entries are resident, including those that do not exist."""

    def __init__(self, head: Head) -> None:
        """Make an empty state at this head of the log."""
        # asyncpg returns -infinity, the time of an empty log, without a zone.
        super().__init__(head.position, head.recorded_at.replace(tzinfo=UTC))
        self._streams: set[UUID] = set()
        self._entries: set[UUID] = set()
        self._identities: deque[_Resident] = deque()
        self._identity_characters = 0
        # Every later load sees at least the events up to here.
        self._seen_position = head.position
        # Whether `prices` has all prices of the log.
        self.has_prices = False

    @property
    def is_full(self) -> bool:
        """Whether a new state should replace this one."""
        return len(self._streams) + len(self._entries) > STATES_MAX

    def set_prices(self, book: PriceBook) -> None:
        """Make the price book resident."""
        self.prices = book
        self.has_prices = True

    async def needed_by(self, requests: Sequence[Request]) -> Needed:
        """Return the ids that must be loaded before these requests can be judged."""
        ids = _NeededIds(self, self._is_resident)
        examined = 0
        for request in requests:
            for candidate in request.candidates:
                ids.add(candidate)
            examined += len(request.candidates)
            if examined >= CANDIDATES_MAX:
                await asyncio.sleep(0)
                examined = 0
        return ids.needed()

    def _is_resident(self, category: str, stream_id: UUID) -> bool:
        return stream_id in (self._entries if category == "cost" else self._streams)

    async def merge(self, loaded: Loaded, needed: Needed) -> None:
        """Add what was loaded for `needed`, except the states of streams that are resident already."""
        is_large = sum(len(rows) for rows in loaded[3:9]) > ROWS_MAX
        for _ in self._merge_stepwise(loaded, needed):
            if is_large:
                await asyncio.sleep(0)

    def _merge_stepwise(self, loaded: Loaded, needed: Needed) -> Iterator[None]:
        if not self.events:
            # All events of a group have one time, also if others join it later.
            self.recorded_at = max(self.recorded_at, loaded.append_at)
        fresh = {stream_id for stream_id in loaded.stream_ids if stream_id not in self._streams}
        for head in loaded.heads:
            if head.stream_id in fresh:
                state = STATE_DECODERS[head.category].decode(head.state)
                self.heads[head.category, head.stream_id] = StreamHead(head.version, state)
        yield
        for row in loaded.balances:
            if row.account_id in fresh:
                self.accounts[row.scope, row.account_id] = Account(row.currency, row.budget, row.spent, row.held)
        self._streams |= fresh
        yield
        for known in loaded.identities:
            identity = known.category, known.stream_id, known.id
            if identity not in self.identities:
                self.identities[identity] = known.recorded_identity()
                self._remember(_Resident(known.position, identity, len(known.data) + len(known.text or "")))
        yield
        self._merge_entries(loaded, needed)
        yield
        self._merge_holds(loaded)
        self._seen_position = max(self._seen_position, loaded.head.position)

    def _merge_entries(self, loaded: Loaded, needed: Needed) -> None:
        missing = by_stream(loaded.entry_events)
        for row in loaded.entries:
            if row.stream_id in self._entries:
                continue
            self._add_entry(row.stream_id, row.stored_version, row.stored, missing.get(row.stream_id, ()))
        self._entries.update(needed.entries)

    def _add_entry(
        self, stream_id: UUID, version: int | None, stored: StoredEntry | None, events: Iterable[EntryEvent]
    ) -> None:
        entry = fold_events(decode(version or 0, stored) if stored else None, events)
        assert entry is not None, "an entry without events"
        self.entries[stream_id] = entry
        if entry.status == "held":
            assert entry.expires_at is not None
            self.holds[stream_id] = Hold(entry.held, entry.campaign_id, entry.agent_job_id, entry.expires_at)

    def _merge_holds(self, loaded: Loaded) -> None:
        for held in loaded.holds:
            # A resident entry may have been settled since the snapshot.
            if held.stream_id not in self._entries:
                self._entries.add(held.stream_id)
                self._add_entry(held.stream_id, held.stored_version, held.stored, held.events or ())
        self.has_unloaded_holds = len(loaded.holds) == RELEASES_MAX

    def begin_group(self) -> None:
        """Begin a group, and drop the oldest identities that every later load would return."""
        for event in self.events:
            self._remember(_Resident(event.position, (event.category, event.stream_id, event.id), event.size))
        super().begin_group()
        while self._has_many_identities() and self._identities[0].position <= self._seen_position:
            forgotten = self._identities.popleft()
            self._identity_characters -= forgotten.characters
            self.identities.pop(forgotten.identity, None)

    def record_denial(self, denial: Denial) -> None:
        """Record a denial; its entry counts as resident."""
        super().record_denial(denial)
        self._entries.add(denial.candidate.stream_id)

    def _remember(self, resident: "_Resident") -> None:
        self._identities.append(resident)
        self._identity_characters += resident.characters

    def _has_many_identities(self) -> bool:
        return len(self._identities) > IDENTITIES_KEPT or (
            bool(self._identities) and self._identity_characters > IDENTITY_CHARACTERS_MAX
        )


class _NeededIds:
    """Collects the ids that candidates need, each once, in order."""

    def __init__(self, state: "ResidentState", is_resident: Callable[[str, UUID], bool]) -> None:
        self._state = state
        self._is_resident = is_resident
        self._streams: dict[UUID, None] = {}
        self._entries: dict[UUID, None] = {}
        self._entry_events: list[UUID] = []
        self._probes: list[Identity] = []
        self._ending_jobs: dict[UUID, None] = {}
        self._ledger_candidates: list[Candidate] = []
        self._needs_prices = False

    def add(self, candidate: Candidate) -> None:
        """Add the ids that one candidate needs."""
        category, stream_id = candidate.event_type.category, candidate.stream_id
        if category == "ledger":
            self._ledger_candidates.append(candidate)
        elif self._is_resident(category, stream_id):
            if self._state.version(category, stream_id) and candidate.identity not in self._state.identities:
                self._probes.append(candidate.identity)
        elif category == "cost":
            self._entries[stream_id] = None
            self._entry_events.append(candidate.id)
        else:
            self._streams[stream_id] = None
            self._probes.append(candidate.identity)
        for reference in ("campaign_id", "parent_job_id" if category == "job" else "agent_job_id"):
            referenced = getattr(candidate.payload, reference, None)
            if referenced is not None and not self._is_resident("", referenced):
                self._streams[referenced] = None
        if candidate.event_type.ends_job:
            self._ending_jobs[stream_id] = None
        if candidate.uses_prices:
            self._needs_prices = not self._state.has_prices

    def needed(self) -> Needed:
        """Return everything that was added."""
        return Needed(
            list(self._streams),
            list(self._entries),
            self._entry_events,
            [category for category, _, _ in self._probes],
            [stream_id for _, stream_id, _ in self._probes],
            [event_id for _, _, event_id in self._probes],
            list(self._ending_jobs),
            self._ledger_candidates,
            self._needs_prices,
        )
