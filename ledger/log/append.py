"""The append transaction: lock the head of the log, load, judge, write, move the head, commit.

Five round trips whatever the size of the group: BEGIN with its timeouts; lock and load; COPY; store; COMMIT. Where the
next group waits already, its BEGIN goes with the COMMIT: the next lock is asked for before anybody is answered. (A
sixth, to look for a `cost.denied` written before, only in a group that refuses a hold; and up to three more for events
of the ledger's own, erasures above all.) The rules of durability are PostgreSQL's own: when `append` returns, the
events are on disk.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from ledger.domain.book import Book
from ledger.domain.errors import Refused
from ledger.domain.event import Receipt, Request
from ledger.domain.judge import judge
from ledger.log.load import LOCK_AND_LOAD, open_book, touched_by
from ledger.log.own import ERASE, load_own
from ledger.log.tables import EVENT_COLUMNS, SCHEMA

if TYPE_CHECKING:
    import asyncpg

Verdict = list[Receipt | Refused]

# A stalled holder of the head's lock must not stop the others, nor a stalled server this one.
BEGIN = """
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL lock_timeout = '10s';
SET LOCAL statement_timeout = '30s';
SET LOCAL idle_in_transaction_session_timeout = '10s';
"""

KNOWN_DENIALS = "SELECT stream_id FROM ledger.cost_events WHERE stream_id = ANY ($1)"

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
    connection: "asyncpg.Connection[asyncpg.Record]",
    requests: Sequence[Request],
    now: datetime | None = None,
    goes_on: Callable[[], bool] = lambda: False,
) -> tuple[list[Verdict], int]:
    """Judge a group of requests and record what is accepted, in one transaction.

    Args:
        connection: outside any transaction, or in the one begun by the last append; in an unknown state when this
            raises.
        requests: judged in this order, each by itself: a refusal never harms its neighbours.
        now: the clock; the server's own when None.
        goes_on: asked in the end: whether to begin the next transaction at once, for an append that follows.

    Returns:
        a verdict a request, and the position of the last event in the log. On return the events are durable.

    Raises:
        asyncpg.UniqueViolationError: an identity was in the log although the load did not see it; redo once.
        asyncpg.PostgresError, OSError: the database failed; whether the group was recorded is then unknown, but
            sending it again with the same ids is safe.
    """
    if not connection.is_in_transaction():
        await connection.execute(BEGIN)
    *touched, own = touched_by(requests)
    answer = await connection.fetchrow(LOCK_AND_LOAD, *touched, now)
    assert answer is not None
    book = open_book(answer)
    if own:
        await load_own(connection, book, own)
    first_new = book.position
    verdicts = [judge(book, request) for request in requests]
    if book.denials:
        await _record_denials(connection, book)
    if book.position == first_new:
        await _end(connection, "ROLLBACK", goes_on())
        return verdicts, book.position
    await connection.copy_records_to_table("events", schema_name=SCHEMA, columns=EVENT_COLUMNS, records=book.events)
    stored, erased = changes(book)
    await connection.execute(STORE, *stored)
    if erased:
        await connection.execute(ERASE, erased)
    await _end(connection, "COMMIT", goes_on())
    return verdicts, book.position


async def _end(connection: "asyncpg.Connection[asyncpg.Record]", how: str, goes_on: bool) -> None:
    await connection.execute(f"{how};{BEGIN}" if goes_on else how)


async def _record_denials(connection: "asyncpg.Connection[asyncpg.Record]", book: Book) -> None:
    known = {row["stream_id"] for row in await connection.fetch(KNOWN_DENIALS, list(book.denials))}
    for denial_id, denial in book.denials.items():
        if denial_id not in known and denial_id not in book.entries:
            book.record(denial.candidate, denial.campaign_id, denial.agent_job_id)


def changes(book: Book) -> tuple[list[Any], list[int]]:
    """What was changed in the book: the arguments of STORE, each row once, by columns; and the events erased."""
    changed_heads, changed_accounts, changed_holds, erased = book.changed(
        book.heads, book.accounts, book.holds, book.erasable
    )
    heads = [(*key, book.heads[key]) for key in changed_heads if key in book.heads]
    accounts = [(*key, book.accounts[key]) for key in changed_accounts if key in book.accounts]
    holds = [(stream_id, book.holds[stream_id]) for stream_id in changed_holds if stream_id in book.holds]
    stored = [
        [stream_id for _, stream_id, _ in heads],
        [category for category, _, _ in heads],
        [head.version for _, _, head in heads],
        [msgspec.json.encode(head.state).decode() for _, _, head in heads],
        [account_id for _, account_id, _ in accounts],
        [scope for scope, _, _ in accounts],
        [account.currency for _, _, account in accounts],
        # As text: the driver takes longer to write a number than PostgreSQL to read one.
        [None if account.limit is None else str(account.limit) for _, _, account in accounts],
        [str(account.spent) for _, _, account in accounts],
        [str(account.held) for _, _, account in accounts],
        [stream_id for stream_id, _ in holds],
        [hold.amount for _, hold in holds],
        [hold.campaign_id for _, hold in holds],
        [hold.agent_job_id for _, hold in holds],
        [hold.expires_at for _, hold in holds],
        [stream_id for stream_id in changed_holds if stream_id not in book.holds],
        book.position,
        book.recorded_at,
    ]
    return stored, erased
