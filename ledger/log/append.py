"""The locked path of an append: lock the head, load, judge, write, commit.

It is correct whatever other processes write. It is used for groups that erase a text, that follow a conflict, or that
are appended while other processes write; otherwise the optimistic path of `pipeline.py` is faster. When `append`
returns, PostgreSQL has written the events to disk.
"""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID, uuid4

from ledger.database import Connection
from ledger.database.singleton import HEAD_TABLE, require_row
from ledger.domain.event import Request
from ledger.domain.judge import Verdict, judge, judge_stepwise
from ledger.domain.working_state import WorkingState
from ledger.log.idempotency_claims import claim_keys
from ledger.log.ledger_events import load_ledger_state
from ledger.log.load import LOAD, LOCK_AND_LOAD, Head, decode_loaded
from ledger.log.price_cache import PriceCache
from ledger.log.resident_state import ResidentState
from ledger.log.state_changes import state_changes
from ledger.log.write import BEGIN_APPEND, Group, write_locked

LOCK_HEAD = "SELECT position, clock_timestamp() AS now FROM ledger.log_head FOR UPDATE"
"""The head lock alone: until the transaction ends, no event is appended."""

EVENT_COST = 100
"""What an event costs if it is not compared by value, in microseconds; rather more than it takes."""

PAUSE_COST = 200 * EVENT_COST
"""After this cost, judging pauses for the event loop."""

UNKNOWN_HEAD = Head(0, datetime.min.replace(tzinfo=UTC), UUID(int=0))
"""The head of a state that nothing was loaded into yet."""

RECORDED_DENIALS = "SELECT stream_id FROM ledger.cost_events WHERE stream_id = ANY ($1)"


class Appended(NamedTuple):
    """A recorded group: the verdicts of its requests, what was written, and the working state after it."""

    verdicts: list[Verdict]
    group: Group
    state: ResidentState


async def append(
    connection: Connection, requests: Sequence[Request], now: datetime | None = None
) -> tuple[list[Verdict], int]:
    """Judge a group of requests and record the accepted events, in one transaction that holds the head lock.

    Args:
        connection: outside any transaction. If this raises, the state of the connection is unknown.
        requests: judged in this order, each separately: a refusal does not affect the other requests.
        now: the time for `recorded_at`; the clock of the database server when None.

    Returns:
        a verdict for each request, and the position of the last event in the log. On return the events are durable.

    Raises:
        asyncpg.UniqueViolationError: the log holds an event id that the load did not return; retry once.
        asyncpg.PostgresError, OSError: the database failed. Whether the group was recorded is then unknown, but
            retrying with the same ids is safe.
    """
    appended = await append_group(connection, requests, PriceCache(), now)
    return appended.verdicts, appended.group.after.position


async def append_group(
    connection: Connection, requests: Sequence[Request], prices: PriceCache, now: datetime | None
) -> Appended:
    """Append as `append` does; the returned working state is valid for the next group."""
    requests = await claim_keys(connection, requests)
    if any(candidate.uses_prices for request in requests for candidate in request.candidates):
        await prices.prepare(connection)
    await connection.execute(BEGIN_APPEND)
    appended = await append_in_transaction(connection, requests, now, prices)
    await connection.execute("COMMIT" if appended.group.events else "ROLLBACK")
    return appended


async def append_in_transaction(
    connection: Connection, requests: Sequence[Request], now: datetime | None = None, prices: PriceCache | None = None
) -> Appended:
    """Append as `append` does, inside a transaction in which the caller also writes rows that belong to the events.

    Args:
        connection: inside a transaction with the timeouts of `APPEND_TIMEOUTS`. It has the head lock afterwards.
        requests: judged in this order, each separately.
        now: the time for `recorded_at`; the clock of the database server when None.
        prices: the price book of the process; loaded for these requests alone when None.

    Returns:
        what was written; durable once the caller has committed.
    """
    state, head = await lock_and_load(connection, requests, prices or PriceCache(), now)
    verdicts = await judge_all(state, requests)
    await record_denials(connection, state)
    group = await end_group(state, head)
    if group.events:
        await write_locked(connection, group)
    return Appended(verdicts, group, state)


async def lock_and_load(
    connection: Connection, requests: Sequence[Request], prices: PriceCache, now: datetime | None
) -> tuple[ResidentState, Head]:
    """Take the head lock and load what the requests need; return the working state and the head.

    Args:
        connection: inside a transaction.
        requests: the requests to judge.
        prices: the price book of the process.
        now: the time for `recorded_at`; the clock of the database server when None.
    """
    return await _load(connection, LOCK_AND_LOAD, requests, prices, now)


async def rehearse(connection: Connection, request: Request, prices: PriceCache) -> Verdict:
    """Judge a request as an append at this moment would, without the head lock, and record nothing.

    Args:
        connection: a connection in any state.
        request: the request to judge.
        prices: the price book of the process.

    Returns:
        the verdict.
    """
    state, _ = await _load(connection, LOAD, [request], prices, None)
    (verdict,) = await judge_all(state, [request])
    return verdict


async def _load(
    connection: Connection, statement: str, requests: Sequence[Request], prices: PriceCache, now: datetime | None
) -> tuple[ResidentState, Head]:
    """Load what the requests need with one of the statements of `ledger.log.load`; see `lock_and_load`."""
    needed = await ResidentState(UNKNOWN_HEAD).needed_by(requests)
    row = require_row(await connection.fetchrow(statement, *needed.arguments(now, prices.position)), HEAD_TABLE)
    loaded = decode_loaded(row)
    state = ResidentState(loaded.head)
    await state.merge(loaded, needed)
    if loaded.prices is not None:
        state.set_prices(await prices.book_at(connection, loaded.prices, loaded.head.position))
    if needed.ledger_candidates:
        await load_ledger_state(connection, state, needed.ledger_candidates)
    return state, loaded.head


async def judge_all(working_state: WorkingState, requests: Sequence[Request]) -> list[Verdict]:
    """Judge requests in order, with pauses for the event loop."""
    verdicts: list[Verdict] = []
    pause_at = working_state.comparison_cost + PAUSE_COST
    judged_cost = 0
    for _ in _judged_stepwise(working_state, requests, verdicts):
        judged_cost += EVENT_COST
        if judged_cost + working_state.comparison_cost >= pause_at:
            await asyncio.sleep(0)
            pause_at = judged_cost + working_state.comparison_cost + PAUSE_COST
    return verdicts


def _judged_stepwise(
    working_state: WorkingState, requests: Sequence[Request], verdicts: list[Verdict]
) -> Iterator[None]:
    """Judge requests, and yield after each event.

    Args:
        working_state: takes their changes.
        requests: judged in this order.
        verdicts: gets a verdict for each request.
    """
    for request in requests:
        if len(request.candidates) == 1:
            verdicts.append(judge(working_state, request))
            yield
        else:
            verdicts.append((yield from judge_stepwise(working_state, request)))


async def record_denials(connection: Connection, working_state: WorkingState) -> None:
    """Record the holds denied since the last call, except those that the log has already."""
    new = [denial_id for denial_id in working_state.denials if denial_id not in working_state.entries]
    if new:
        recorded = {row["stream_id"] for row in await connection.fetch(RECORDED_DENIALS, new)}
        for denial_id in new:
            if denial_id not in recorded:
                working_state.record_denial(working_state.denials[denial_id])
    working_state.denials.clear()


async def end_group(state: ResidentState, before: Head) -> Group:
    """Return what the judged group must write, and begin the next group in the state."""
    events, (states, erased) = list(state.events), await state_changes(state)
    after = Head(state.position, state.recorded_at, uuid4()) if events else before
    state.begin_group()
    return Group(events, states, erased, before, after)
