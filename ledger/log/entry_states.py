"""Stored states of budget entries (`ledger.entries`), so that appends need not fold their history.

An entry with one event has no stored state, since the event suffices. The format is numbered: `ledger.load_state` takes
an entry in an earlier format, which the previous release may still write, for one without a stored state.
"""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from ledger.domain import budget_entry, cost, money
from ledger.domain.budget_entry import Entry
from ledger.domain.catalogue import decode_stored

FORMAT = 2


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
    is_credit: bool
    unpriced: bool
    currency: str | None
    provider: str | None
    model_used: str | None
    service_tier: str | None
    resource_type: str
    labels: dict[str, str] | None


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


def to_stored(entry: Entry) -> tuple[Any, ...]:
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
        entry.is_credit,
        entry.unpriced,
        entry.currency,
        entry.provider,
        entry.model_used,
        entry.service_tier,
        entry.resource_type,
        entry.labels,
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
        state.is_credit,
        state.unpriced,
        state.currency,
        state.provider,
        state.model_used,
        state.service_tier,
        state.resource_type,
        state.labels,
    )


def fold_events(entry: Entry | None, events: Iterable[EntryEvent]) -> Entry | None:
    """Fold events into an entry; None is the entry before its first event."""
    for event in events:
        payload = decode_stored(event.type, event.schema_version, event.data, event.text)
        if entry is not None:
            entry = budget_entry.fold(entry, payload, event.recorded_at)
        else:
            assert isinstance(payload, budget_entry.Opening | cost.CostDenied)
            entry = budget_entry.open_entry(payload, event.campaign_id, event.agent_job_id, event.recorded_at)
    return entry
