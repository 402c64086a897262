"""The append transaction: head lock, load, judge, write with gapless positions, move the head, commit.

It takes five round trips for a group of any size: BEGIN with its timeouts, lock and load, COPY, store, COMMIT. If
another group waits already, its BEGIN is sent with the COMMIT, so that its lock is requested before any client is
answered. A sixth round trip, only for a group that refuses a hold, selects earlier `cost.denied` events; events of the
category `ledger`, mostly erasures, take up to three more. Durability is PostgreSQL's: when `append` returns, the
events are on disk.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from ledger.database import Connection
from ledger.domain.errors import Refused
from ledger.domain.event import Receipt, Request
from ledger.domain.judge import judge
from ledger.domain.working_state import WorkingState
from ledger.log.ledger_events import ERASE, load_ledger_state
from ledger.log.load import LOCK_AND_LOAD, decode_working_state, touched_by
from ledger.log.tables import EVENT_COLUMNS, SCHEMA

Verdict = list[Receipt | Refused]

# A stalled process that holds the head lock must not block the others, nor a stalled server this process.
BEGIN_APPEND = """
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL lock_timeout = '10s';
SET LOCAL statement_timeout = '30s';
SET LOCAL idle_in_transaction_session_timeout = '10s';
"""

LOCK_HEAD = "SELECT position, clock_timestamp() AS now FROM ledger.log_head FOR UPDATE"
"""The head lock alone: until the transaction ends, no event is appended."""

RECORDED_DENIALS = "SELECT stream_id FROM ledger.cost_events WHERE stream_id = ANY ($1)"

STORE = """
WITH stored_streams AS (
    INSERT INTO ledger.streams (stream_id, category, version, state)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::json[])
    ON CONFLICT (stream_id, category) DO UPDATE SET version = excluded.version, state = excluded.state
), stored_accounts AS (
    INSERT INTO ledger.accounts (account_id, scope, currency, budget, spent, held)
    SELECT account_id, scope, currency, budget::numeric, spent::numeric, held::numeric
    FROM unnest($5::uuid[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[])
        AS sent (account_id, scope, currency, budget, spent, held)
    ON CONFLICT (account_id, scope) DO UPDATE
    SET budget = excluded.budget, spent = excluded.spent, held = excluded.held
), opened_holds AS (
    INSERT INTO ledger.holds (stream_id, amount, campaign_id, agent_job_id, expires_at)
    SELECT * FROM unnest($11::uuid[], $12::numeric[], $13::uuid[], $14::uuid[], $15::timestamptz[])
), closed_holds AS (
    DELETE FROM ledger.holds WHERE stream_id = ANY ($16)
)
UPDATE ledger.log_head SET position = $17, recorded_at = $18
"""


async def append(
    connection: Connection,
    requests: Sequence[Request],
    now: datetime | None = None,
    begin_next: Callable[[], bool] = lambda: False,
) -> tuple[list[Verdict], int]:
    """Judge a group of requests and record the accepted events, in one transaction.

    Args:
        connection: outside any transaction, or in the one begun by the previous append. If this raises, the state of
            the connection is unknown.
        requests: judged in this order, each separately: a refusal does not affect the other requests.
        now: the time for `recorded_at`; the clock of the database server when None.
        begin_next: called at the end; if it returns True, the transaction for a following append is begun at once.

    Returns:
        a verdict for each request, and the position of the last event in the log. On return the events are durable.

    Raises:
        asyncpg.UniqueViolationError: the log holds an event id that the load did not return; retry once.
        asyncpg.PostgresError, OSError: the database failed. Whether the group was recorded is then unknown, but
            retrying with the same ids is safe.
    """
    if not connection.is_in_transaction():
        await connection.execute(BEGIN_APPEND)
    *touched, ledger_candidates = touched_by(requests)
    loaded = await connection.fetchrow(LOCK_AND_LOAD, *touched, now)
    assert loaded is not None
    working_state = decode_working_state(loaded)
    if ledger_candidates:
        await load_ledger_state(connection, working_state, ledger_candidates)
    head = working_state.position
    verdicts = [judge(working_state, request) for request in requests]
    if working_state.denials:
        await _record_denials(connection, working_state)
    if working_state.position == head:
        await _end(connection, "ROLLBACK", begin_next())
        return verdicts, head
    await connection.copy_records_to_table(
        "events", schema_name=SCHEMA, columns=EVENT_COLUMNS, records=working_state.events
    )
    stored, erased = changes(working_state)
    await connection.execute(STORE, *stored)
    if erased:
        await connection.execute(ERASE, erased)
    await _end(connection, "COMMIT", begin_next())
    return verdicts, working_state.position


async def _end(connection: Connection, command: str, begin_next: bool) -> None:
    await connection.execute(f"{command};{BEGIN_APPEND}" if begin_next else command)


async def _record_denials(connection: Connection, working_state: WorkingState) -> None:
    rows = await connection.fetch(RECORDED_DENIALS, list(working_state.denials))
    recorded = {row["stream_id"] for row in rows}
    for denial_id, denial in working_state.denials.items():
        if denial_id not in recorded and denial_id not in working_state.entries:
            working_state.record(denial.candidate, denial.campaign_id, denial.agent_job_id)


def changes(working_state: WorkingState) -> tuple[list[Any], list[int]]:
    """Return the changes of a working state: the arguments of STORE, column by column, and the erased positions."""
    changed_heads, changed_accounts, changed_holds, erased = working_state.changed(
        working_state.heads, working_state.accounts, working_state.holds, working_state.erasable
    )
    heads = [(*key, working_state.heads[key]) for key in changed_heads if key in working_state.heads]
    accounts = [(*key, working_state.accounts[key]) for key in changed_accounts if key in working_state.accounts]
    holds = [
        (stream_id, working_state.holds[stream_id]) for stream_id in changed_holds if stream_id in working_state.holds
    ]
    stored = [
        [stream_id for _, stream_id, _ in heads],
        [category for category, _, _ in heads],
        [head.version for _, _, head in heads],
        [msgspec.json.encode(head.state).decode() for _, _, head in heads],
        [account_id for _, account_id, _ in accounts],
        [scope for scope, _, _ in accounts],
        [account.currency for _, _, account in accounts],
        # As text: asyncpg takes longer to encode a numeric than PostgreSQL to parse one.
        [None if account.limit is None else str(account.limit) for _, _, account in accounts],
        [str(account.spent) for _, _, account in accounts],
        [str(account.held) for _, _, account in accounts],
        [stream_id for stream_id, _ in holds],
        [hold.amount for _, hold in holds],
        [hold.campaign_id for _, hold in holds],
        [hold.agent_job_id for _, hold in holds],
        [hold.expires_at for _, hold in holds],
        [stream_id for stream_id in changed_holds if stream_id not in working_state.holds],
        working_state.position,
        working_state.recorded_at,
    ]
    return stored, erased
