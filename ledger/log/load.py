"""What an append asks of the database under the lock, and how the answer becomes a working_state.

The answer comes as JSON text from `ledger.lock_and_load`, one array a row, and is decoded straight into types.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import msgspec

from ledger.domain import cost
from ledger.domain.catalogue import as_written_today, decode_stored
from ledger.domain.cost import Entry
from ledger.domain.event import Candidate, Receipt, Request
from ledger.domain.working_state import Account, Head, Hold, RecordedIdentity, WorkingState, type_of_state

if TYPE_CHECKING:
    import asyncpg

LOCK_AND_LOAD = """
SELECT head_position, append_at, heads, known, entries, balances, open_holds
FROM ledger.lock_and_load($1, $2, $3, $4, $5)
"""


class Touched(NamedTuple):
    """The ids that a group of requests touches: but for `own`, the arguments of `ledger.lock_and_load`.

    `own` are the ledger's own events, for which `ledger.log.own` loads.
    """

    streams: list[UUID]
    events: list[UUID]
    entries: list[UUID]
    ending_jobs: list[UUID]
    own: Sequence[Candidate] = ()


def touched_by(requests: Iterable[Request]) -> Touched:
    """Collect what must be loaded to judge these requests."""
    streams: dict[UUID, None] = {}
    events: dict[UUID, None] = {}
    entries: dict[UUID, None] = {}
    ending_jobs: dict[UUID, None] = {}
    own: list[Candidate] = []
    for request in requests:
        for candidate in request.candidates:
            if candidate.event_type.category == "cost":
                entries[candidate.stream_id] = None
            elif candidate.event_type.category == "ledger":
                own.append(candidate)
            else:
                streams[candidate.stream_id] = None
                events[candidate.id] = None
            for reference in ("campaign_id", "agent_job_id"):
                referenced = getattr(candidate.payload, reference, None)
                if referenced is not None:
                    streams[referenced] = None
            if candidate.event_type.ends_job:
                ending_jobs[candidate.stream_id] = None
    return Touched(list(streams), list(events), list(entries), list(ending_jobs), own)


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

    def known(self) -> RecordedIdentity:
        """The event as this release would have written it: a repeat is compared with that."""
        receipt = Receipt(self.id, self.stream_id, self.version, self.position, False, self.over_budget)
        data, text = as_written_today(self.type, self.schema_version, self.data, self.text)
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
_states = {category: msgspec.json.Decoder(state) for category, state in type_of_state.items()}


def _rows(decoder: "msgspec.json.Decoder[list[Any]]", text: str | None) -> list[Any]:
    return decoder.decode(text) if text else []


def decode_working_state(answer: "asyncpg.Record") -> WorkingState:
    """Make the working_state from one answer of `ledger.lock_and_load`."""
    working_state = WorkingState(answer["head_position"], answer["append_at"])
    for row in _rows(_head_rows, answer["heads"]):
        working_state.heads[row.category, row.stream_id] = Head(row.version, _states[row.category].decode(row.state))
    for row in _rows(_identity_rows, answer["known"]):
        working_state.identities[row.category, row.stream_id, row.id] = row.known()
    for row in _rows(_entry_rows, answer["entries"]):
        working_state.identities["cost", row.stream_id, row.id] = row.known()
        working_state.entries[row.stream_id] = _fold_entry(working_state.entries.get(row.stream_id), row)
    for row in _rows(_balance_rows, answer["balances"]):
        working_state.accounts[row.scope, row.account_id] = Account(row.currency, row.budget, row.spent, row.held)
    for row in _rows(_hold_rows, answer["open_holds"]):
        working_state.holds[row.stream_id] = Hold(row.amount, row.campaign_id, row.agent_job_id, row.expires_at)
        # A held entry has only been reserved: it need not be folded from its events to be released.
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
    return cost.opened(payload, row.campaign_id, row.agent_job_id, row.recorded_at)
