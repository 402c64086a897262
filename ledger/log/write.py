"""Writing a judged group: by compare-and-swap in one statement, or under the head lock.

The compare-and-swap moves the head only if it is still the expected one, and inserts only if it moved the head: one
round trip, and no lock held while Python works. Both ways update the head's row before anything else, so two writers
cannot deadlock.
"""

import asyncio
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from ledger.database import Connection
from ledger.domain.event import Recorded
from ledger.log.ledger_events import ERASE
from ledger.log.load import Head
from ledger.log.tables import EVENT_COLUMNS, SCHEMA

COPY_CHARACTERS_MIN = 1024 * 1024
"""Groups of at least this size are written by COPY: building and parsing one JSON text would take longer."""

COPY_EVENTS_MAX = 1_000
"""The most events in one COPY: asyncpg encodes them without a pause for the event loop."""

ENCODED_EVENTS_MAX = 1_000
"""The most events encoded as JSON without a pause for the event loop."""

# A stalled process that holds the head lock must not block the others, nor a stalled server this process.
APPEND_TIMEOUTS = """
SET LOCAL lock_timeout = '10s';
SET LOCAL statement_timeout = '30s';
SET LOCAL idle_in_transaction_session_timeout = '10s';
"""

BEGIN_APPEND = f"BEGIN ISOLATION LEVEL READ COMMITTED;{APPEND_TIMEOUTS}"

STORE = "SELECT ledger.store_states($1, $2, $3, $4, $5, $6, $7, $8)"

WRITE = """
SELECT CASE WHEN ledger.append_events($9, $10, $11, $12, $13, $14, $15)
    THEN ledger.store_states($1, $2, $3, $4, $5, $6, $7, $8) END
"""

MOVE_HEAD = """
UPDATE ledger.log_head SET position = $1, recorded_at = $2, token = $3
WHERE position = $4 AND recorded_at = $5 AND token = $6
"""
"""Move the head, if it is still the expected one; this takes its lock."""


class _EventRow(msgspec.Struct, omit_defaults=True, gc=False):
    """An event for `ledger.append_events`, which documents the keys; default values are omitted."""

    c: str
    s: UUID
    t: str
    a: str
    d: str
    v: int = 1
    i: UUID | None = None
    n: int = 1
    o: datetime | None = None
    p: UUID | None = None
    j: UUID | None = None
    r: UUID | None = None
    e: UUID | None = None
    x: str | None = None
    z: bytes | None = None
    y: str | None = None
    b: list[str] | None = None


def _event_row(event: Recorded) -> _EventRow:
    return _EventRow(
        event.category,
        event.stream_id,
        event.type,
        event.actor,
        event.data,
        event.version,
        None if event.id == event.stream_id else event.id,
        event.schema_version,
        None if event.occurred_at is event.recorded_at else event.occurred_at,
        event.campaign_id,
        event.agent_job_id,
        event.correlation_id,
        event.causation_id,
        event.text,
        event.text_salt,
        event.text_commitment,
        event.over_budget,
    )


class Group(NamedTuple):
    """A judged group to be written: its events, the arguments of `STORE`, and the head before and after it."""

    events: list[Recorded]
    states: list[Any]
    erased: list[int]
    before: Head
    after: Head


async def write_conditionally(connection: Connection, group: Group) -> bool:
    """Write a group without erasures, if the head is still `group.before`.

    Returns:
        Whether it was written and is durable. If not, nothing has changed.

    Raises:
        asyncpg.UniqueViolationError: the log holds an event id that the load did not return.
        asyncpg.PostgresError, OSError: the database failed; whether the group was written is unknown.
    """
    if _fits_one_statement(group):
        return await _write_in_one_statement(connection, group)
    await connection.execute(BEGIN_APPEND)
    is_written = await _write_by_copy(connection, group)
    await connection.execute("COMMIT" if is_written else "ROLLBACK")
    return is_written


async def write_locked(connection: Connection, group: Group) -> None:
    """Write a group inside the transaction that holds the head lock; the caller commits."""
    write = _write_in_one_statement if _fits_one_statement(group) else _write_by_copy
    if not await write(connection, group):
        raise AssertionError("the head moved while it was locked")
    if group.erased:
        await connection.execute(ERASE, group.erased)


def _fits_one_statement(group: Group) -> bool:
    """Whether `ledger.append_events` can write the group: all its events have one time, unlike those of an import."""
    recorded_at = group.after.recorded_at
    is_small = sum(event.size for event in group.events) < COPY_CHARACTERS_MIN
    return is_small and all(event.recorded_at == recorded_at for event in group.events)


async def _write_in_one_statement(connection: Connection, group: Group) -> bool:
    return bool(await connection.fetchval(WRITE, *group.states, *group.after, *group.before, await _json(group.events)))


async def _write_by_copy(connection: Connection, group: Group) -> bool:
    if await connection.execute(MOVE_HEAD, *group.after, *group.before) != "UPDATE 1":
        return False
    for start in range(0, len(group.events), COPY_EVENTS_MAX):
        await connection.copy_records_to_table(
            "events",
            schema_name=SCHEMA,
            columns=EVENT_COLUMNS,
            records=group.events[start : start + COPY_EVENTS_MAX],
        )
    await connection.execute(STORE, *group.states)
    return True


async def _json(events: list[Recorded]) -> str:
    parts = []
    for start in range(0, len(events), ENCODED_EVENTS_MAX):
        if start:
            await asyncio.sleep(0)
        rows = [_event_row(event) for event in events[start : start + ENCODED_EVENTS_MAX]]
        parts.append(msgspec.json.encode(rows)[1:-1])
    return f"[{b','.join(parts).decode()}]"
