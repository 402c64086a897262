"""The state changes of a judged group, as the arguments of `ledger.store_states`.

New and existing rows are apart, since PostgreSQL updates a row in half the time of an upsert. Amounts are text: asyncpg
takes longer to encode a numeric than PostgreSQL to parse one.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from ledger.domain.working_state import WorkingState
from ledger.log import entry_states

Columns = list[list[Any]]


def state_changes(working_state: WorkingState) -> tuple[Columns, list[int]]:
    """Return the arguments of `ledger.store_states`, and the positions of the events whose text is erased."""
    heads, entries, accounts, holds, erased, pending = working_state.changed(
        working_state.heads,
        working_state.entries,
        working_state.accounts,
        working_state.holds,
        working_state.erasable,
        working_state.pending_releases,
    )
    columns = [
        *_head_columns(working_state, _new(heads)),
        *_head_columns(working_state, _existing(heads)),
        *_entry_columns(working_state, entries),
        *_account_columns(working_state, new := _new(accounts)),
        [working_state.accounts[key].currency for key in new],
        *_account_columns(working_state, _existing(accounts)),
        *_hold_columns(working_state, _new(holds)),
        [key for key in _existing(holds) if key not in working_state.holds],
        list(pending),
        [working_state.pending_releases[job_id] for job_id in pending],
    ]
    return columns, list(erased)


def _new(changed: dict[Any, Any]) -> list[Any]:
    return [key for key, before in changed.items() if before is None]


def _existing(changed: dict[Any, Any]) -> list[Any]:
    return [key for key, before in changed.items() if before is not None]


def _head_columns(working_state: WorkingState, keys: Iterable[Any]) -> Columns:
    heads = [(*key, working_state.heads[key]) for key in keys]
    return [
        [stream_id for _, stream_id, _ in heads],
        [category for category, _, _ in heads],
        [head.version for _, _, head in heads],
        [msgspec.json.encode(head.state).decode() for _, _, head in heads],
    ]


def _entry_columns(working_state: WorkingState, keys: Iterable[Any]) -> Columns:
    # An entry with one event has no stored state.
    entries = [(key, entry) for key in keys if (entry := working_state.entries[key]).version > 1]
    return [
        [stream_id for stream_id, _ in entries],
        [entry.version for _, entry in entries],
        [entry_states.encode(entry) for _, entry in entries],
    ]


def _account_columns(working_state: WorkingState, keys: Iterable[Any]) -> Columns:
    accounts = [(*key, working_state.accounts[key]) for key in keys]
    return [
        [account_id for _, account_id, _ in accounts],
        [scope for scope, _, _ in accounts],
        [None if account.limit is None else str(account.limit) for _, _, account in accounts],
        [str(account.spent) for _, _, account in accounts],
        [str(account.held) for _, _, account in accounts],
    ]


def _hold_columns(working_state: WorkingState, keys: Iterable[Any]) -> Columns:
    # A hold that the group opened and closed again is not stored.
    holds = [(key, hold) for key in keys if (hold := working_state.holds.get(key)) is not None]
    return [
        [stream_id for stream_id, _ in holds],
        [str(hold.amount) for _, hold in holds],
        [hold.campaign_id for _, hold in holds],
        [hold.agent_job_id for _, hold in holds],
        [hold.expires_at for _, hold in holds],
    ]
