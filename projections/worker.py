"""The worker: lock the checkpoint, read a page, fold it, write the rows, move the checkpoint, commit.

Rows and checkpoint move in one transaction, so replay is exactly-once. Any number of workers may run anywhere: the
checkpoint row, taken with SKIP LOCKED, picks one a page, and a killed worker's lock goes with its connection.
"""

import asyncio
import logging
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.database import driver_connection
from ledger.log.read import PAGE_EVENTS_MAX, EventFilter, StoredEvent, read_page
from projections.fold import fold, needed_by
from projections.writer import load, write

if TYPE_CHECKING:
    import asyncpg

log = logging.getLogger(__name__)

GROUP = "read_models"
"""The one checkpoint that the four tables share."""

IDLE_SECONDS_MIN = 0.005
IDLE_SECONDS_MAX = 1.0
"""An idle worker looks for new events after this long; sooner when it is woken."""

SMALL_PAGE_EVENTS = 500
GATHER_SECONDS = 0.008
"""After a page smaller than that the worker lets events gather for so long."""

RETRY_SECONDS_MAX = 30.0

BEGIN = """
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL lock_timeout = '10s';
SET LOCAL statement_timeout = '60s';
SET LOCAL idle_in_transaction_session_timeout = '60s';
"""

LOCK_CHECKPOINT = """
SELECT position FROM ledger.projection_checkpoints WHERE name = $1 FOR UPDATE SKIP LOCKED
"""

MOVE_CHECKPOINT = """
UPDATE ledger.projection_checkpoints
SET position = $2, updated_at = clock_timestamp(), status = 'running', last_error = NULL
WHERE name = $1
"""

RECORD_ERROR = """
UPDATE ledger.projection_checkpoints SET status = 'failing', last_error = $2 WHERE name = $1
"""

CLEAR_ERROR = """
UPDATE ledger.projection_checkpoints SET status = 'running', last_error = NULL WHERE name = $1
"""


class ProjectionError(msgspec.Struct):
    """Why the projections stand still: shown by `/v1/projections` and `ledger status`."""

    type: str
    position: int
    error: str
    failed_at: str


class Worker:
    """Keeps the read models. Run it as a task; `stop` lets it finish its page."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()

    def wake(self) -> None:
        """Say that there are new events; called by the appender of the same process."""
        self._wake.set()

    def stop(self) -> None:
        """Ask the worker to end after the page it is at."""
        self._stopping.set()
        self._wake.set()

    async def run(self) -> None:
        """Fold pages until stopped; failures are recorded, shown, and tried again with back-off."""
        idle_seconds = retry_seconds = IDLE_SECONDS_MIN
        page_events = PAGE_EVENTS_MAX
        failing = False
        while not self._stopping.is_set():
            try:
                folded = await fold_page(self._engine, page_events)
                if failing and not folded:
                    await self._note(CLEAR_ERROR)
            except Exception as error:
                if isinstance(error, PageFailed) and error.events > 1:
                    # Halve the page until what cannot be folded stands alone; what comes before it is folded.
                    page_events = error.events // 2
                    continue
                failing = True
                retry_seconds = min(RETRY_SECONDS_MAX, retry_seconds * 4)
                log.exception("the projections failed, next try in %.1f s", retry_seconds)
                await self._note(RECORD_ERROR, _describe(error))
                await _wait(self._stopping, retry_seconds)
                continue
            failing = False
            retry_seconds = IDLE_SECONDS_MIN
            page_events = min(PAGE_EVENTS_MAX, page_events * 2)
            if not folded:
                idle_seconds = min(IDLE_SECONDS_MAX, idle_seconds * 2)
                await _wait(self._wake, idle_seconds)
                self._wake.clear()
                continue
            idle_seconds = IDLE_SECONDS_MIN
            if folded < SMALL_PAGE_EVENTS:
                # Under a stream of small groups: fewer, larger pages leave the machine to those who append.
                await _wait(self._stopping, GATHER_SECONDS)

    async def _note(self, statement: str, *arguments: str) -> None:
        try:
            async with driver_connection(self._engine) as connection:
                await connection.execute(statement, GROUP, *arguments)
        except Exception:
            log.exception("how the projections are could not be written down")


def _describe(error: Exception) -> str:
    failure = ProjectionError(
        type=getattr(error, "event_type", type(error).__name__),
        position=getattr(error, "position", 0),
        error=str(error),
        failed_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return msgspec.json.encode(failure).decode()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


class PageFailed(Exception):
    """A page could not be folded; carries its size, and its first event's position and type."""

    def __init__(self, page: list[StoredEvent], cause: Exception) -> None:
        super().__init__(f"{type(cause).__name__}: {cause}")
        self.events = len(page)
        self.position = page[0].position
        self.event_type = page[0].type


async def fold_page(engine: AsyncEngine, events_max: int = PAGE_EVENTS_MAX) -> int:
    """Fold the next page of events into the read models.

    Returns:
        how many events were folded; 0 where there are none, or where another worker is at it.
    """
    async with driver_connection(engine) as connection:
        await connection.execute(BEGIN)
        position = await connection.fetchval(LOCK_CHECKPOINT, GROUP)
        page = [] if position is None else await read_page(connection, EventFilter(after=position), events_max)
        if not page:
            await connection.execute("ROLLBACK")
            return 0
        try:
            await _fold_into(connection, page)
        except Exception as error:
            raise PageFailed(page, error) from error
        await connection.execute("COMMIT")
        return len(page)


async def _fold_into(connection: "asyncpg.Connection[asyncpg.Record]", page: list[StoredEvent]) -> None:
    models = await load(connection, needed_by(page))
    fold(page, models)
    await write(connection, models)
    await connection.execute(MOVE_CHECKPOINT, GROUP, page[-1].position)
