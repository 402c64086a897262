"""The worker: lock the checkpoint, read a page, fold it, write the rows, move the checkpoint, commit.

Rows and checkpoint move in one transaction, so replay is exactly-once. Any number of workers may run anywhere: the
checkpoint row, taken with SKIP LOCKED, picks one a page, and a killed worker's lock goes with its connection.
"""

import asyncio
import logging
from contextlib import suppress
from functools import partial

from ledger.backoff import Backoff
from ledger.database import Database
from ledger.domain.catalogue import UnknownEventTypeError
from ledger.domain.errors import LedgerError
from ledger.log.notifications import LogSignal
from ledger.log.read import EventFilter, StoredEvent, read_page
from projections import checkpoint
from projections.checkpoint import Failure
from projections.page import PAGE_EVENTS_MAX, apply_page, is_events_fault
from projections.prefetch import PageReader
from projections.skips import read_skips

logger = logging.getLogger(__name__)

IDLE_SECONDS_MIN = 0.005
"""An idle worker looks for new events after this long, then after twice as long, and so on; sooner when woken."""

STANDBY_SECONDS = 0.5
"""While another worker is at it, this one looks so often whether it still is."""

SMALL_PAGE_EVENTS = 500
GATHER_SECONDS = 0.004
"""After a page smaller than that the worker lets events gather for so long."""

RETRY_SECONDS_MIN = 0.08
RETRY_SECONDS_MAX = 30.0

OUTAGE_SECONDS_MAX = 2.0
"""Where the database is at fault: to ask whether it is back costs little, and every second shows in the tables."""

TRIES_MAX = 5
"""An event that cannot be folded so many times, with longer and longer pauses, waits for an operator."""

BEGIN = """
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
    """Keeps the read models. Run it as a task; `stop` lets it finish its page."""

    def __init__(self, database: Database, signal: LogSignal | None = None) -> None:
        self._database = database
        self._signal = signal or LogSignal()
        self._stopping = asyncio.Event()
        self._tries = 0
        self._retry = Backoff(RETRY_SECONDS_MIN, RETRY_SECONDS_MAX, factor=4)
        self._reader = PageReader(database)

    def stop(self) -> None:
        """Ask the worker to end after the page it is at."""
        self._stopping.set()
        self._signal.notify()

    async def run(self) -> None:
        """Fold pages until stopped; failures are recorded, shown, and tried again with back-off."""
        try:
            await self._run()
        finally:
            await self._reader.close()

    async def _run(self) -> None:
        idle = Backoff(IDLE_SECONDS_MIN)
        page_events = PAGE_EVENTS_MAX
        # A worker that has just started may be a release that can fold what stopped the last one.
        even_paused = True
        while not self._stopping.is_set():
            seen = self._signal.generation
            try:
                folded = await self._fold_or_pass(page_events, even_paused)
            except Exception as error:  # noqa: BLE001 (recorded, shown, logged and tried again)
                if isinstance(error, PageError):
                    # Halve the page until what cannot be folded stands alone; what comes before it is folded.
                    page_events = max(1, error.events // 2)
                    if error.is_events_fault and error.events > 1:
                        continue
                await self._fail(error)
                even_paused = False
                continue
            even_paused = False
            if folded is None:
                await _wait(self._stopping, STANDBY_SECONDS)
                continue
            self._reset_tries()
            page_events = min(PAGE_EVENTS_MAX, page_events * 2)
            if not folded:
                await self._signal.wait(seen, idle.next(self._signal.idle_seconds_max))
                continue
            idle.reset()
            if folded < SMALL_PAGE_EVENTS:
                # Under a stream of small groups: fewer, larger pages leave the machine to those who append.
                await _wait(self._stopping, GATHER_SECONDS)

    async def _fold_or_pass(self, page_events: int, even_paused: bool) -> int | None:
        """Fold a page, as `fold_page` does; an event that an operator decided to skip counts as folded."""
        try:
            return await fold_page(self._database, page_events, even_paused=even_paused, reader=self._reader)
        except PageError as failed:
            if failed.is_events_fault and failed.events == 1 and await self._pass_skipped(failed):
                return 1
            raise

    async def _fail(self, error: Exception) -> None:
        """Write the failure down, and wait before the next try."""
        self._tries += 1
        cause = error.__cause__ if isinstance(error, PageError) else error
        assert isinstance(cause, Exception)
        status, failure, seconds_max = "failing", Failure.of(cause), OUTAGE_SECONDS_MAX
        if isinstance(error, PageError) and error.is_events_fault:
            failure, seconds_max = Failure.of(cause, error.position, error.event_type), RETRY_SECONDS_MAX
            # An event of a newer release will be folded by that release's workers: for them it must not be paused.
            if self._tries >= TRIES_MAX and not isinstance(cause, UnknownEventTypeError):
                status = "paused"
        seconds = self._retry.next(seconds_max)
        outlook = "paused: see `ledger projections`" if status == "paused" else f"next try in {seconds:.1f} s"
        logger.error("the read models are %s at %s, %s", status, failure.position or "work", outlook, exc_info=error)
        try:
            async with self._database.connection() as connection:
                await checkpoint.record_failure(connection, status, failure)
        except Exception:
            logger.exception("how the read models are could not be written down")
            await _wait(self._stopping, seconds)
            return
        if status == "paused":
            self._reset_tries()
        else:
            await self._back_off(seconds)

    def _reset_tries(self) -> None:
        self._tries = 0
        self._retry.reset()

    async def _back_off(self, seconds: float) -> None:
        """Wait so long; less where an operator clears the failure, who rings then."""
        clock = asyncio.get_running_loop().time
        end = clock() + seconds
        while not self._stopping.is_set():
            seen = self._signal.generation
            # A busy log rings all the time: look no more often than this.
            await _wait(self._stopping, min(STANDBY_SECONDS, end - clock()))
            if clock() >= end or await self._is_cleared():
                return
            await self._signal.wait(seen, min(end - clock(), self._signal.idle_seconds_max))

    async def _is_cleared(self) -> bool:
        with suppress(Exception):
            async with self._database.connection() as connection:
                return (await checkpoint.read_checkpoint_status(connection)).status == "running"
        return False

    async def _pass_skipped(self, failed: PageError) -> bool:
        """Move past an event that cannot be folded where an operator decided so."""
        async with self._database.connection() as connection:
            decided = (await read_skips(connection)).get(failed.position)
            if decided is None:
                return False
            await connection.execute(BEGIN)
            position = await connection.fetchval(checkpoint.LOCK)
            if position == failed.position - 1:
                await connection.execute(checkpoint.MOVE, failed.position)
            await connection.execute("COMMIT")
        # The next event has had no try yet.
        self._tries = 0
        logger.warning("position %d is skipped, as %s decided: %s", decided.position, decided.by, decided.reason)
        return True


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def fold_page(
    database: Database,
    events_max: int = PAGE_EVENTS_MAX,
    *,
    even_paused: bool = False,
    reader: PageReader | None = None,
) -> int | None:
    """Fold the next page of events into the read models.

    Args:
        reader: of the pages, where more than one will be folded; it may have read this one ahead.

    Returns:
        how many events were folded, 0 where there are none; None where another worker is at it, or where they are
        paused.

    Raises:
        PageError: nothing of the page was kept.
    """
    async with database.connection() as connection:
        await connection.execute(BEGIN)
        row = await connection.fetchrow(checkpoint.TRY_LOCK)
        if row is None or (row["status"] == "paused" and not even_paused):
            await connection.execute("ROLLBACK")
            return None
        if reader is None:
            page = await read_page(connection, EventFilter(after=row["position"]), events_max)
        else:
            page = await reader.read(connection, row["position"], events_max)
        if not page:
            if row["status"] != "running":
                # Whatever it was has passed.
                await connection.execute(checkpoint.CLEAR_FAILURE)
            await connection.execute("COMMIT")
            return 0
        try:
            read_on = partial(reader.read_on, page, events_max) if reader else None
            await apply_page(connection, page, "public", read_on)
            await connection.execute(checkpoint.MOVE, page[-1].position)
        except Exception as error:
            raise PageError(page, error) from error
        await connection.execute("COMMIT")
        return len(page)
