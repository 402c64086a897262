"""Lock and load: take the head lock, then read duplicates (by event id), versions, balances and holds.

The function `ledger.lock_and_load` returns one row of JSON texts, which hold an array for each table row; they are
decoded directly into the types of the working state.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import msgspec

from ledger.domain import cost
from ledger.domain.catalogue import decode_stored, to_newest_version
from ledger.domain.cost import Entry
from ledger.domain.event import Candidate, Receipt, Request
from ledger.domain.working_state import STATE_TYPES, Account, Head, Hold, RecordedIdentity, WorkingState

if TYPE_CHECKING:
    import asyncpg

LOCK_AND_LOAD = """
SELECT head_position, append_at, heads, known, entries, balances, open_holds
FROM ledger.lock_and_load($1, $2, $3, $4, $5)
"""


class Touched(NamedTuple):
    """The ids that a group of requests needs: the arguments of `ledger.lock_and_load`, and `ledger_candidates`.

    For the latter, the events of the category `ledger`, `ledger.log.ledger_events` loads.
    """

    streams: list[UUID]
    events: list[UUID]
    entries: list[UUID]
    ending_jobs: list[UUID]
    ledger_candidates: Sequence[Candidate] = ()


def touched_by(requests: Iterable[Request]) -> Touched:
    """Return the ids that must be loaded to judge these requests."""
    streams: dict[UUID, None] = {}
    events: dict[UUID, None] = {}
    entries: dict[UUID, None] = {}
    ending_jobs: dict[UUID, None] = {}
    ledger_candidates: list[Candidate] = []
    for request in requests:
        for candidate in request.candidates:
            if candidate.event_type.category == "cost":
                entries[candidate.stream_id] = None
            elif candidate.event_type.category == "ledger":
                ledger_candidates.append(candidate)
            else:
                streams[candidate.stream_id] = None
                events[candidate.id] = None
            for reference in ("campaign_id", "agent_job_id"):
                referenced = getattr(candidate.payload, reference, None)
                if referenced is not None:
                    streams[referenced] = None
            if candidate.event_type.ends_job:
                ending_jobs[candidate.stream_id] = None
    return Touched(list(streams), list(events), list(entries), list(ending_jobs), ledger_candidates)


class _IdentityRow(msgspec.Struct, array_like=True):
    stream_id: UUID
    id: UUID
    type: str
    data: str
    text: str | None
    erased: bool
    occurred_at: datetime
    correlation_id: UUID | None
    causation_id: UUID | None
    version: int
    position: int
    over_budget: list[str] | None
    category: str
    schema_version: int

    def recorded_identity(self) -> RecordedIdentity:
        """Return the event as the current release would have written it; a retried event is compared with that."""
        receipt = Receipt(self.id, self.stream_id, self.version, self.position, False, self.over_budget)
        data, text = to_newest_version(self.type, self.schema_version, self.data, self.text)
        return RecordedIdentity(
            self.type,
            data,
            text,
            self.erased,
            self.occurred_at,
            self.correlation_id,
            self.causation_id,
            receipt,
        )


class _EntryRow(_IdentityRow, array_like=True):
    campaign_id: UUID | None
    agent_job_id: UUID | None
    recorded_at: datetime


class _HeadRow(msgspec.Struct, array_like=True):
    category: str
    stream_id: UUID
    version: int
    state: msgspec.Raw


class _BalanceRow(msgspec.Struct, array_like=True):
    scope: str
    account_id: UUID
    currency: str
    budget: Decimal | None
    spent: Decimal
    held: Decimal


class _HoldRow(msgspec.Struct, array_like=True):
    stream_id: UUID
    amount: Decimal
    campaign_id: UUID | None
    agent_job_id: UUID | None
    expires_at: datetime


_identity_rows = msgspec.json.Decoder(list[_IdentityRow])
_entry_rows = msgspec.json.Decoder(list[_EntryRow])
_head_rows = msgspec.json.Decoder(list[_HeadRow])
_balance_rows = msgspec.json.Decoder(list[_BalanceRow])
_hold_rows = msgspec.json.Decoder(list[_HoldRow])
_states = {category: msgspec.json.Decoder(state) for category, state in STATE_TYPES.items()}


def _rows(decoder: "msgspec.json.Decoder[list[Any]]", text: str | None) -> list[Any]:
    return decoder.decode(text) if text else []


def decode_working_state(loaded: "asyncpg.Record") -> WorkingState:
    """Make the working state from the row that `ledger.lock_and_load` returned."""
    working_state = WorkingState(loaded["head_position"], loaded["append_at"])
    for row in _rows(_head_rows, loaded["heads"]):
        working_state.heads[row.category, row.stream_id] = Head(row.version, _states[row.category].decode(row.state))
    for row in _rows(_identity_rows, loaded["known"]):
        working_state.identities[row.category, row.stream_id, row.id] = row.recorded_identity()
    for row in _rows(_entry_rows, loaded["entries"]):
        working_state.identities["cost", row.stream_id, row.id] = row.recorded_identity()
        working_state.entries[row.stream_id] = _fold_entry(working_state.entries.get(row.stream_id), row)
    for row in _rows(_balance_rows, loaded["balances"]):
        working_state.accounts[row.scope, row.account_id] = Account(row.currency, row.budget, row.spent, row.held)
    for row in _rows(_hold_rows, loaded["open_holds"]):
        working_state.holds[row.stream_id] = Hold(row.amount, row.campaign_id, row.agent_job_id, row.expires_at)
        # A held entry has exactly one event, the reservation: its state follows from the hold, without that event.
        working_state.entries.setdefault(
            row.stream_id,
            Entry("held", 1, row.campaign_id, row.agent_job_id, held=row.amount, expires_at=row.expires_at),
        )
    return working_state


def _fold_entry(entry: Entry | None, row: _EntryRow) -> Entry:
    payload = decode_stored(row.type, row.schema_version, row.data, row.text)
    if entry is not None:
        return cost.fold(entry, payload)
    assert isinstance(payload, cost.CostRecorded | cost.CostReserved | cost.CostDenied)
    return cost.open_entry(payload, row.campaign_id, row.agent_job_id, row.recorded_at)
