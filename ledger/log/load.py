"""Load what a group needs to be judged: identities (duplicates), versions, entries, balances, holds.

`ledger.load_state` reads everything in one snapshot, including the head; `ledger.lock_and_load_state` takes the head
lock first. The rows arrive as JSON texts, an array for each row, and are decoded directly into structs.
"""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import msgspec

from ledger.domain.catalogue import to_newest_version
from ledger.domain.event import Candidate, Receipt
from ledger.domain.working_state import RELEASES_MAX, STATE_TYPES, RecordedIdentity
from ledger.log.entry_states import EntryEvent, StoredEntry
from ledger.log.log_clock import log_time
from ledger.log.price_cache import PAGE_PRICES_MAX

if TYPE_CHECKING:
    import asyncpg

_COLUMNS = """
head_position, head_recorded_at, head_token, append_at, ahead_from, ahead_since,
coalesce($9, clock_timestamp()) AS server_time, loaded, heads, known, entries, entry_events, balances, open_holds,
ledger.load_prices($10, $11) AS prices
"""

_ARGUMENTS = "($1, $2, $3, $4, $5, $6, $7, $8, $9)"

LOAD = f"SELECT {_COLUMNS} FROM ledger.load_state{_ARGUMENTS}, ledger.log_head"  # noqa: S608 (fixed texts)

# The lead of the log's clock is read without waiting for the lock: at worst it is that of the group before.
LOCK_AND_LOAD = f"SELECT {_COLUMNS} FROM ledger.lock_and_load_state{_ARGUMENTS}, ledger.log_head"  # noqa: S608


class Head(NamedTuple):
    """The end of the log. The token is new at each move: equal positions of two histories differ by it."""

    position: int
    recorded_at: datetime
    token: UUID


class Needed(NamedTuple):
    """The ids that must be loaded for a group of requests: the arguments of `ledger.load_state`.

    `ledger_candidates` are the events of the category `ledger`; `ledger.log.ledger_events` loads what they need.
    `needs_prices`: an event is a price or must be priced, and the price book is not resident.
    """

    streams: list[UUID]
    entries: list[UUID]
    entry_events: list[UUID]
    probe_categories: list[str]
    probe_streams: list[UUID]
    probe_events: list[UUID]
    ending_jobs: list[UUID]
    ledger_candidates: list[Candidate]
    needs_prices: bool = False

    def arguments(self, now: datetime | None, prices_from: int = 0) -> tuple[Any, ...]:
        """Return the arguments of the SQL functions.

        Args:
            now: the time of the append; None: the server's clock.
            prices_from: the position from which price events are loaded, if any are needed.
        """
        return *self[:7], RELEASES_MAX, now, prices_from if self.needs_prices else None, PAGE_PRICES_MAX


class _IdentityRow(msgspec.Struct, array_like=True, gc=False):
    category: str
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
    schema_version: int

    def recorded_identity(self) -> RecordedIdentity:
        """Return the event as this release would have written it, to compare a retried event with it."""
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


class _HeadRow(msgspec.Struct, array_like=True, gc=False):
    category: str
    stream_id: UUID
    version: int
    state: msgspec.Raw


class _EntryRow(msgspec.Struct, array_like=True, gc=False):
    """A cost stream: its version, and the stored state if there is one."""

    stream_id: UUID
    version: int
    stored_version: int | None
    stored: StoredEntry | None


class _BalanceRow(msgspec.Struct, array_like=True, gc=False):
    scope: str
    account_id: UUID
    currency: str
    budget: Decimal | None
    spent: Decimal
    held: Decimal


class _HoldRow(msgspec.Struct, array_like=True, gc=False):
    """An open hold of a job that ends: the stored state of its entry if there is one, and the events after that."""

    stream_id: UUID
    amount: Decimal
    campaign_id: UUID | None
    agent_job_id: UUID | None
    expires_at: datetime
    stored_version: int | None
    stored: StoredEntry | None
    events: list[EntryEvent] | None


class Loaded(NamedTuple):
    """An answer of the SQL functions: the head of its snapshot, the time of the append, the streams read, the rows."""

    head: Head
    append_at: datetime
    stream_ids: list[UUID]
    heads: list[_HeadRow]
    identities: list[_IdentityRow]
    entries: list[_EntryRow]
    entry_events: list[EntryEvent]
    balances: list[_BalanceRow]
    holds: list[_HoldRow]
    prices: str | None
    """What `ledger.load_prices` returned; None if no prices are needed."""


_head_rows = msgspec.json.Decoder(list[_HeadRow])
_identity_rows = msgspec.json.Decoder(list[_IdentityRow])
_entry_rows = msgspec.json.Decoder(list[_EntryRow])
_entry_events = msgspec.json.Decoder(list[EntryEvent])
_balance_rows = msgspec.json.Decoder(list[_BalanceRow])
_hold_rows = msgspec.json.Decoder(list[_HoldRow])
STATE_DECODERS = {category: msgspec.json.Decoder(state) for category, state in STATE_TYPES.items()}


def decode_loaded(row: "asyncpg.Record") -> Loaded:
    """Decode the row that `ledger.load_state` or `ledger.lock_and_load_state` returned."""
    return Loaded(
        Head(row["head_position"], row["head_recorded_at"], row["head_token"]),
        log_time(row["append_at"], row["server_time"], row["ahead_from"], row["ahead_since"]),
        row["loaded"],
        _rows(_head_rows, row["heads"]),
        _rows(_identity_rows, row["known"]),
        _rows(_entry_rows, row["entries"]),
        _rows(_entry_events, row["entry_events"]),
        _rows(_balance_rows, row["balances"]),
        _rows(_hold_rows, row["open_holds"]),
        row["prices"],
    )


def _rows(decoder: "msgspec.json.Decoder[list[Any]]", text: str | None) -> list[Any]:
    return decoder.decode(text) if text else []


def by_stream(events: Iterable[EntryEvent]) -> dict[UUID, list[EntryEvent]]:
    """Group events by stream, in order."""
    grouped: dict[UUID, list[EntryEvent]] = {}
    for event in events:
        grouped.setdefault(event.stream_id, []).append(event)
    return grouped
