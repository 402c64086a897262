"""The worker: lock the checkpoint, read a page, fold it, write the rows, move the checkpoint, commit.

Rows and checkpoint change in one transaction, so every event is folded exactly once. Any number of workers may run
anywhere: the checkpoint row, locked with SKIP LOCKED, selects one for each page, and PostgreSQL releases the lock of a
worker that is killed.
"""

import asyncio
import logging
from contextlib import suppress
from functools import partial

from ledger.backoff import Backoff
from ledger.database import Database, log_level
from ledger.domain.catalogue import UnknownEventTypeError
from ledger.domain.errors import LedgerError
from ledger.log.notifications import LogSignal
from ledger.log.read import EventFilter, StoredEvent, read_page
from projections import checkpoint
from projections.checkpoint import Failure
from projections.page import FOLD_PAGE_EVENTS_MAX, apply_page, is_events_fault
from projections.prefetch import PageReader
from projections.skips import read_skips

logger = logging.getLogger(__name__)

IDLE_SECONDS_MIN = 0.005
"""The first pause of an idle worker before it polls again; each pause is twice the last. A notification ends it."""

STANDBY_SECONDS = 0.5
"""How often a worker tries to take over while another one holds the checkpoint."""

SMALL_PAGE_EVENTS = 500
GATHER_SECONDS = 0.004
"""The pause after a page of fewer than `SMALL_PAGE_EVENTS` events, so that more of them gather."""

RETRY_SECONDS_MIN = 0.08
RETRY_SECONDS_MAX = 30.0

OUTAGE_SECONDS_MAX = 2.0
"""The longest pause if the database failed: a retry is cheap, and each second of delay shows in the tables."""

TRIES_MAX = 5
"""After this many failed tries, an event that cannot be folded pauses the read models until an operator decides."""

DECIDE = "`ledger projections retry read_models` or `ledger projections skip read_models --reason ...`"

BEGIN_PAGE = """
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL lock_timeout = '10s';
SET LOCAL statement_timeout = '60s';
SET LOCAL idle_in_transaction_session_timeout = '60s';
"""


class PageError(LedgerError):
    """A page could not be folded; carries its size, its first event's position and type, and the error as cause."""

    def __init__(self, page: list[StoredEvent], cause: Exception) -> None:
        super().__init__(f"{type(cause).__name__}: {cause}")
        self.events = len(page)
        self.position = page[0].position
        self.event_type = page[0].type
        self.is_events_fault = is_events_fault(cause)


class Worker:
    """Maintains the read models. Run it as a task; `stop` lets it finish its page."""

    def __init__(self, database: Database, signal: LogSignal | None = None) -> None:
        """Make a worker; `signal` wakes it when the log grows, without one it polls."""
        self._database = database
        self._signal = signal or LogSignal()
        self._stopping = asyncio.Event()
        self._tries = 0
        self._logged: tuple[str, int | None, str | None] | None = None
        self._retry = Backoff(RETRY_SECONDS_MIN, RETRY_SECONDS_MAX, factor=4)
        self._reader = PageReader(database)

    def stop(self) -> None:
        """Make the worker stop after its current page."""
        self._stopping.set()
        self._signal.notify()

    async def run(self) -> None:
        """Fold pages until stopped; failures are recorded and retried with back-off."""
        try:
            await self._run()
        finally:
            await self._reader.close()

    async def _run(self) -> None:
        idle = Backoff(IDLE_SECONDS_MIN)
        page_events = FOLD_PAGE_EVENTS_MAX
        # A worker that has just started may be of a release that can fold the event that paused the last one.
        ignore_pause = True
        while not self._stopping.is_set():
            seen = self._signal.generation
            try:
                folded = await self._fold_or_skip(page_events, ignore_pause)
            except Exception as error:  # noqa: BLE001 (recorded, logged and retried)
                if isinstance(error, PageError):
                    # Halve the page until the event that cannot be folded is alone; the ones before it are folded.
                    page_events = max(1, error.events // 2)
                    if error.is_events_fault and error.events > 1:
                        continue
                await self._fail(error)
                ignore_pause = False
                continue
            ignore_pause = False
            if folded is None:
                await _wait(self._stopping, STANDBY_SECONDS)
                continue
            self._reset_tries()
            page_events = min(FOLD_PAGE_EVENTS_MAX, page_events * 2)
            if not folded:
                await self._signal.wait(seen, idle.next(self._signal.idle_seconds_max))
                continue
            idle.reset()
            if folded < SMALL_PAGE_EVENTS:
                # While small groups are appended steadily, fewer and larger pages leave more of the machine to appends.
                await _wait(self._stopping, GATHER_SECONDS)

    async def _fold_or_skip(self, page_events: int, ignore_pause: bool) -> int | None:
        """Fold a page like `fold_page`; an event that an operator decided to skip counts as folded."""
        try:
            return await fold_page(self._database, page_events, ignore_pause=ignore_pause, reader=self._reader)
        except PageError as failed:
            if failed.is_events_fault and failed.events == 1 and await self._skip(failed):
                return 1
            raise

    async def _fail(self, error: Exception) -> None:
        """Record the failure and wait before the next try."""
        self._tries += 1
        status, failure, seconds_max = self._assess(error)
        seconds = self._retry.next(seconds_max)
        at = f" at position {failure.position}" if failure.position else ""
        next_step = f"retry in {seconds:.1f} s" if status == "failing" else f"decide with {DECIDE}"
        level = self._log_level(error, status, failure)
        logger.log(level, "the read models are %s%s; %s", status, at, next_step, exc_info=error)
        try:
            async with self._database.connection() as connection:
                await checkpoint.record_failure(connection, status, failure)
        except Exception as second_error:
            level = log_level(second_error, logging.ERROR)
            logger.log(level, "the failure of the read models could not be recorded in the database", exc_info=True)
            await _wait(self._stopping, seconds)
            return
        if status == "paused":
            self._reset_tries()
        else:
            await self._back_off(seconds)

    def _log_level(self, error: Exception, status: str, failure: Failure) -> int:
        """Return the level to log a failure at: DEBUG for an outage, and for a failure that was logged already."""
        cause = error.__cause__ if isinstance(error, PageError) else error
        logged, self._logged = self._logged, (status, failure.position, failure.type)
        if logged == self._logged:
            return logging.DEBUG
        return logging.ERROR if isinstance(cause, TimeoutError) or cause is None else log_level(cause, logging.ERROR)

    def _assess(self, error: Exception) -> tuple[str, Failure, float]:
        """Return the status of the read models after an error, its description, and the longest pause in seconds."""
        cause = error.__cause__ if isinstance(error, PageError) else error
        assert isinstance(cause, Exception)
        if not isinstance(error, PageError) or not error.is_events_fault:
            return "failing", Failure.from_error(cause), OUTAGE_SECONDS_MAX
        # The workers of a newer release will fold its events: for them the read models must not be paused.
        is_paused = self._tries >= TRIES_MAX and not isinstance(cause, UnknownEventTypeError)
        failure = Failure.from_error(cause, error.position, error.event_type)
        return "paused" if is_paused else "failing", failure, RETRY_SECONDS_MAX

    def _reset_tries(self) -> None:
        self._tries = 0
        self._logged = None
        self._retry.reset()

    async def _back_off(self, seconds: float) -> None:
        """Wait; less if an operator clears the failure, which also notifies the worker."""
        clock = asyncio.get_running_loop().time
        end = clock() + seconds
        while not self._stopping.is_set():
            seen = self._signal.generation
            # A busy log notifies all the time: that must not become a query each time.
            await _wait(self._stopping, min(STANDBY_SECONDS, end - clock()))
            if clock() >= end or await self._is_cleared():
                return
            await self._signal.wait(seen, min(end - clock(), self._signal.idle_seconds_max))

    async def _is_cleared(self) -> bool:
        with suppress(Exception):
            async with self._database.connection() as connection:
                return (await checkpoint.read_checkpoint_status(connection)).status == "running"
        return False

    async def _skip(self, failed: PageError) -> bool:
        """Advance past an event that cannot be folded, if an operator decided to skip it."""
        async with self._database.connection() as connection:
            skip = (await read_skips(connection)).get(failed.position)
            if skip is None:
                return False
            await connection.execute(BEGIN_PAGE)
            position = await connection.fetchval(checkpoint.LOCK_CHECKPOINT)
            if position == failed.position - 1:
                await connection.execute(checkpoint.ADVANCE_CHECKPOINT, failed.position)
            await connection.execute("COMMIT")
        # The next event has not been tried yet.
        self._reset_tries()
        logger.warning("the event at position %d is skipped, as %s decided: %s", skip.position, skip.by, skip.reason)
        return True


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def fold_page(
    database: Database,
    events_max: int = FOLD_PAGE_EVENTS_MAX,
    *,
    ignore_pause: bool = False,
    reader: PageReader | None = None,
) -> int | None:
    """Fold the next page of events into the read models, in one transaction.

    Args:
        database: lends the connection.
        events_max: the most events of the page.
        ignore_pause: whether to try even if the read models are paused.
        reader: prefetches pages for a caller that folds several; it may have prefetched this one.

    Returns:
        how many events were folded, 0 if there are none; None if another worker holds the checkpoint, or the read
        models are paused.

    Raises:
        PageError: the page could not be folded; nothing was written.
    """
    async with database.connection() as connection:
        await connection.execute(BEGIN_PAGE)
        row = await connection.fetchrow(checkpoint.TRY_LOCK_CHECKPOINT)
        if row is None or (row["status"] == "paused" and not ignore_pause):
            await connection.execute("ROLLBACK")
            return None
        if reader is None:
            page = await read_page(connection, EventFilter(after=row["position"]), events_max)
        else:
            page = await reader.read(connection, row["position"], events_max)
        if not page:
            if row["status"] != "running":
                # The cause of the failure has gone.
                await connection.execute(checkpoint.CLEAR_FAILURE)
            await connection.execute("COMMIT")
            return 0
        try:
            prefetch = partial(reader.prefetch, page, events_max) if reader else None
            await apply_page(connection, page, "public", prefetch)
            await connection.execute(checkpoint.ADVANCE_CHECKPOINT, page[-1].position)
        except Exception as error:
            raise PageError(page, error) from error
        await connection.execute("COMMIT")
        return len(page)
