"""An export becomes a ledger: the same events in an empty log, and the states as if they had been appended there.

One transaction, so all or nothing. Each page goes the way of an append: lock and load what it touches, judge, COPY,
store. So memory is bounded by a page, whatever the length of the log.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import asyncpg

from ledger.audit.export import ExportError, ExportLine, at_line
from ledger.database import Connection
from ledger.domain.codec import time_text
from ledger.domain.errors import LedgerError
from ledger.domain.event import Candidate, Request
from ledger.domain.rejudge import candidate_of, restore
from ledger.log.append import STORE, changes
from ledger.log.ledger_events import load_ledger_state
from ledger.log.load import LOCK_AND_LOAD, decode_working_state, touched_by
from ledger.log.read import PAGE_CHARACTERS_MAX, PAGE_EVENTS_MAX
from ledger.log.tables import EVENT_COLUMNS, SCHEMA

if TYPE_CHECKING:
    Connection = Connection

# Appends wait for this one; a stalled one must not stop them for ever.
TIMEOUTS = "SET LOCAL lock_timeout = '10s'; SET LOCAL idle_in_transaction_session_timeout = '5min'"

LOCK_HEAD = "SELECT position, clock_timestamp() AS now FROM ledger.log_head FOR UPDATE"

AHEAD_MAX = timedelta(hours=1)
"""So far may another machine's clock be ahead. Time in a log never runs backwards: one event of the year 9000 would
have every later one recorded then."""


class LedgerNotEmptyError(LedgerError):
    """The ledger holds events."""


class EmptyExportError(LedgerError):
    """The export holds no event."""


async def import_lines(
    connection: Connection, lines: Iterable[ExportLine], progress: Callable[[int], None] = lambda position: None
) -> int:
    """Make the log of an empty ledger.

    Args:
        connection: outside any transaction.
        progress: called with the position reached, after each page.

    Returns:
        the position of the last event. On return the events are durable; whoever waits for new ones is not told yet.

    Raises:
        LedgerNotEmptyError: the ledger holds events already.
        EmptyExportError: there are no lines.
        ExportError: a line is not as it must be, or its event could not have been recorded there.
    """
    position = 0
    async with connection.transaction():
        await connection.execute(TIMEOUTS)
        head = await connection.fetchrow(LOCK_HEAD)
        assert head is not None
        if head["position"]:
            raise LedgerNotEmptyError(f"the ledger holds {head['position']:,} events: an import needs an empty one")
        for page in _pages(lines):
            _require_past(page[-1], head["now"])
            position = await _append(connection, page)
            progress(position)
        if not position:
            raise EmptyExportError("the export holds no event")
    return position


def _require_past(line: ExportLine, now: datetime) -> None:
    if line.event.recorded_at > now + AHEAD_MAX:
        ahead = f"recorded at {time_text(line.event.recorded_at)}, which lies in the future (it is {time_text(now)})"
        raise ExportError(line.number, ahead, line.event.position)


def _pages(lines: Iterable[ExportLine]) -> Iterator[list[ExportLine]]:
    page: list[ExportLine] = []
    characters = 0
    for line in lines:
        size = len(line.event.data) + len(line.event.text or "")
        if page and (len(page) == PAGE_EVENTS_MAX or characters + size > PAGE_CHARACTERS_MAX):
            yield page
            page, characters = [], 0
        page.append(line)
        characters += size
    if page:
        yield page


async def _append(connection: Connection, page: list[ExportLine]) -> int:
    candidates = [_candidate(line) for line in page]
    *touched, own = touched_by([Request(candidates)])
    answer = await connection.fetchrow(LOCK_AND_LOAD, *touched, page[0].event.recorded_at)
    assert answer is not None
    working_state = decode_working_state(answer)
    if own:
        await load_ledger_state(connection, working_state, own)
    for line, candidate in zip(page, candidates, strict=True):
        with at_line(line):
            restore(working_state, line.event, candidate)
    try:
        await connection.copy_records_to_table(
            "events", schema_name=SCHEMA, columns=EVENT_COLUMNS, records=working_state.events
        )
        stored, _ = changes(working_state)
        await connection.execute(STORE, *stored)
    except (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError) as error:
        detail = getattr(error, "detail", None) or error
        refused = f"the database refuses this line or one of those up to line {page[-1].number:,}: {detail}"
        raise ExportError(page[0].number, refused) from None
    return working_state.position


def _candidate(line: ExportLine) -> Candidate:
    with at_line(line):
        return candidate_of(line.event)
