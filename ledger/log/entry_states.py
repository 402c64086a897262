"""Stored states of budget entries (`ledger.entries`), so that appends need not fold their history.

An entry with one event has no stored state, since the event suffices. The format is numbered: a release that adds an
attribute also reads the earlier formats.
"""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import msgspec

from ledger.domain import cost, money
from ledger.domain.catalogue import decode_stored
from ledger.domain.cost import Entry

FORMAT = 1


class StoredEntry(msgspec.Struct, array_like=True, gc=False):
    """The JSON array in `ledger.entries.state`."""

    format: int
    status: str
    campaign_id: UUID | None
    agent_job_id: UUID | None
    cost: Decimal
    tokens_used: int
    held: Decimal
    expires_at: datetime | None


class EntryEvent(msgspec.Struct, array_like=True, gc=False):
    """An event after the stored state of its entry, as `ledger.load_state` returns it."""

    stream_id: UUID
    version: int
    type: str
    schema_version: int
    data: str
    text: str | None
    campaign_id: UUID | None
    agent_job_id: UUID | None
    recorded_at: datetime


def to_stored(entry: Entry) -> tuple[int, str, UUID | None, UUID | None, str, int, str, datetime | None]:
    """Return the stored state of an entry, with canonical amounts, so that equal states are equal texts."""
    return (
        FORMAT,
        entry.status,
        entry.campaign_id,
        entry.agent_job_id,
        money.plain(entry.cost),
        entry.tokens_used,
        money.plain(entry.held),
        entry.expires_at,
    )


def decode(version: int, state: StoredEntry) -> Entry:
    """Return the entry of a stored state."""
    return Entry(
        state.status,
        version,
        state.campaign_id,
        state.agent_job_id,
        state.cost,
        state.tokens_used,
        state.held,
        state.expires_at,
    )


def fold_events(entry: Entry | None, events: Iterable[EntryEvent]) -> Entry | None:
    """Fold events into an entry; None is the entry before its first event."""
    for event in events:
        payload = decode_stored(event.type, event.schema_version, event.data, event.text)
        if entry is not None:
            entry = cost.fold(entry, payload)
        else:
            assert isinstance(payload, cost.CostRecorded | cost.CostReserved | cost.CostDenied)
            entry = cost.open_entry(payload, event.campaign_id, event.agent_job_id, event.recorded_at)
    return entry
