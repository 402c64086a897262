"""The state changes of a judged group, as the arguments of `ledger.store_states`.

They are sent as JSON: asyncpg encodes an array in Python, element by element. New and existing rows are separate
arguments, since PostgreSQL updates a row in half the time of an upsert.
"""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from ledger.domain.working_state import State, WorkingState
from ledger.log.entry_states import to_stored

EVENTS_MAX = 1_000
"""The most events of a group whose state changes are encoded without a pause for the event loop."""


Changed = dict[Any, Any]
"""The changed keys of a kind of state, and the state before the group."""


class _StreamRow(msgspec.Struct, gc=False):
    stream_id: UUID
    category: str
    version: int
    state: State


class _EntryRow(msgspec.Struct, gc=False):
    stream_id: UUID
    version: int
    state: Sequence[Any]


class _AccountRow(msgspec.Struct, omit_defaults=True, gc=False):
    account_id: UUID
    scope: str
    spent: Decimal
    held: Decimal
    budget: Decimal | None = None
    currency: str | None = None


class _HoldRow(msgspec.Struct, gc=False):
    stream_id: UUID
    amount: Decimal
    campaign_id: UUID | None
    agent_job_id: UUID | None
    expires_at: datetime


class _PendingRow(msgspec.Struct, gc=False):
    job_id: UUID
    position: int


async def state_changes(working_state: WorkingState) -> tuple[list[Any], list[int]]:
    """Return the arguments of `ledger.store_states`, and the positions of the events whose text is erased."""
    *changed, erased = working_state.changed(
        working_state.heads,
        working_state.entries,
        working_state.accounts,
        working_state.holds,
        working_state.pending_releases,
        working_state.erasable,
    )
    is_large = len(working_state.events) > EVENTS_MAX
    arguments = []
    for argument in _arguments(working_state, *changed):
        arguments.append(argument)
        if is_large:
            await asyncio.sleep(0)
    return arguments, list(erased)


def _arguments(
    working_state: WorkingState,
    heads: Changed,
    entries: Changed,
    accounts: Changed,
    holds: Changed,
    pending: Changed,
) -> Iterator[Any]:
    yield _json([_stream_row(working_state, key) for key, before in heads.items() if before is None])
    yield _json([_stream_row(working_state, key) for key, before in heads.items() if before is not None])
    yield _json(_entry_rows(working_state, entries))
    yield _json([_account_row(working_state, key, is_new=True) for key, before in accounts.items() if before is None])
    yield _json([_account_row(working_state, key) for key, before in accounts.items() if before is not None])
    yield _json(_opened_hold_rows(working_state, holds))
    # A hold that the group opened and closed again is not stored. An extended hold is deleted, then inserted.
    yield [key for key, before in holds.items() if before is not None] or None
    yield _json([_PendingRow(job_id, working_state.pending_releases[job_id]) for job_id in pending])


def _json(rows: Sequence[msgspec.Struct]) -> str | None:
    return msgspec.json.encode(rows).decode() if rows else None


def _stream_row(working_state: WorkingState, key: tuple[str, UUID]) -> _StreamRow:
    head = working_state.heads[key]
    return _StreamRow(key[1], key[0], head.version, head.state)


def _entry_rows(working_state: WorkingState, changed: dict[UUID, Any]) -> list[_EntryRow]:
    # An entry with one event has no stored state.
    entries = ((key, working_state.entries[key]) for key in changed)
    return [_EntryRow(key, entry.version, to_stored(entry)) for key, entry in entries if entry.version > 1]


def _account_row(working_state: WorkingState, key: tuple[str, UUID], *, is_new: bool = False) -> _AccountRow:
    account = working_state.accounts[key]
    currency = account.currency if is_new else None
    return _AccountRow(key[1], key[0], account.spent, account.held, account.limit, currency)


def _opened_hold_rows(working_state: WorkingState, changed: dict[UUID, Any]) -> list[_HoldRow]:
    return [_HoldRow(key, *hold) for key in changed if (hold := working_state.holds.get(key)) is not None]
