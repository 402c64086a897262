"""Import of an export into an empty ledger: the same events, and the state that appending leaves.

The import is one transaction: all or nothing. Each page takes the steps of an append: lock and load the state that it
needs, judge its events, COPY them, store the new state. So memory is limited by the page, not by the length of the log.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta

import asyncpg

from ledger.audit.export_lines import ExportError, ExportLine, at_line
from ledger.database import Connection
from ledger.database.singleton import HEAD_TABLE, require_row
from ledger.domain.codec import time_text
from ledger.domain.errors import LedgerError
from ledger.domain.event import Candidate, Request
from ledger.domain.log_history import LogHistory
from ledger.domain.price_check import changes_price
from ledger.domain.rejudge import rejudge, to_candidate
from ledger.log.append import LOCK_HEAD, end_group, lock_and_load
from ledger.log.pending_releases import find_pending_releases
from ledger.log.price_cache import PriceCache
from ledger.log.priced_calls import read_calls
from ledger.log.read import PAGE_CHARACTERS_MAX, PAGE_EVENTS_MAX
from ledger.log.write import write_locked

# Appends wait for the import's lock, so an import that stalls must not hold it forever.
IMPORT_TIMEOUTS = "SET LOCAL lock_timeout = '10s'; SET LOCAL idle_in_transaction_session_timeout = '5min'"

CLOCK_AHEAD_MAX = timedelta(hours=1)
"""How far the clock of the machine that recorded the events may be ahead of this one. Times in a log never decrease, so
after one event of the year 9000 every later event would be recorded in that year."""


class LedgerNotEmptyError(LedgerError):
    """The ledger to import into already has events."""


class EmptyExportError(LedgerError):
    """The export has no events."""


class MissingTextsError(LedgerError):
    """The export lacks texts, and the events that record their erasure."""


async def import_lines(
    connection: Connection, lines: Iterable[ExportLine], progress: Callable[[int], None] = lambda position: None
) -> int:
    """Import the lines of an export into an empty ledger.

    Args:
        connection: outside any transaction.
        lines: of the export, in order.
        progress: called with the position reached, after each page.

    Returns:
        The position of the last event. The events are durable; the caller has to send the notification.

    Raises:
        LedgerNotEmptyError: the ledger already has events.
        EmptyExportError: there are no lines.
        MissingTextsError: a text is missing, but no later event records its erasure.
        ExportError: a line is invalid, or its event could not have been recorded at this point of the log.
    """
    position, history, prices = 0, LogHistory(), PriceCache()
    async with connection.transaction():
        await connection.execute(IMPORT_TIMEOUTS)
        head = require_row(await connection.fetchrow(LOCK_HEAD), HEAD_TABLE)
        if head["position"]:
            raise LedgerNotEmptyError(
                f"the ledger already has {head['position']:,} events; import into an empty one, before its first "
                "`ledger up` and before any key is created, since keys are events too"
            )
        for page in _pages(lines):
            _require_not_in_future(page[-1], head["now"])
            position = await _append(connection, page, history, prices)
            progress(position)
        if not position:
            raise EmptyExportError("the export has no events")
        if history.missing_texts:
            # `ledger verify` would report them for ever.
            raise MissingTextsError(history.describe_missing_texts())
        await find_pending_releases(connection)
    return position


def _require_not_in_future(line: ExportLine, now: datetime) -> None:
    if line.event.recorded_at > now + CLOCK_AHEAD_MAX:
        detail = f"recorded at {time_text(line.event.recorded_at)}, which is in the future (now: {time_text(now)})"
        raise ExportError(line.number, detail, line.event.position)


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


async def _append(connection: Connection, page: list[ExportLine], history: LogHistory, prices: PriceCache) -> int:
    candidates = [_candidate(line) for line in page]
    working_state, head = await lock_and_load(connection, [Request(candidates)], prices, page[0].event.recorded_at)
    changing = {candidate.stream_id for candidate in candidates if changes_price(candidate.payload)}
    history.priced_calls.replace(await read_calls(connection, changing))
    for line, candidate in zip(page, candidates, strict=True):
        with at_line(line):
            rejudge(working_state, history, line.event, candidate)
    group = await end_group(working_state, head)
    try:
        # The export has the events without the texts that were erased.
        await write_locked(connection, group._replace(erased=[]))
    except (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError) as error:
        detail = getattr(error, "detail", None) or error
        rejected = f"the database rejects this line or one of the lines up to {page[-1].number:,}: {detail}"
        raise ExportError(page[0].number, rejected) from None
    return group.after.position


def _candidate(line: ExportLine) -> Candidate:
    with at_line(line):
        return to_candidate(line.event)
