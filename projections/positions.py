"""Wait until the read models, or a replica's log, reach a position (`min_position`).

All waiting reads of a process share one task that polls the position: a thousand reads that wait cost as much as one.
"""

import asyncio
from collections.abc import Awaitable, Callable

from ledger.backoff import Backoff
from ledger.database import Connection, Database
from ledger.domain.errors import Malformed, Overloaded, ProjectionBehind
from ledger.fair_share import FairShare
from ledger.log.point_in_time import require_reached
from ledger.log.read import read_head
from projections.checkpoint import read_position

MIN_POSITION_SECONDS_MAX = 5.0

WAITING_MAX = 1_000
"""The most reads that wait for a position at a time, shared fairly by their keys."""

POLL_SECONDS_MIN = 0.002
POLL_SECONDS_MAX = 0.05
POLL_GROWTH = 1.25
"""Back-off factor: an answer is late by at most a quarter of the time that the newest read has waited."""


class PositionWaiters:
    """The reads that wait for a position of one database."""

    def __init__(
        self,
        database: Database,
        read: Callable[[Connection], Awaitable[int]],
        subject: str,
        *,
        is_primary: bool = False,
    ) -> None:
        """Make a queue without waiting reads.

        Args:
            database: the primary or a replica.
            read: reads the position.
            subject: what has the position, for messages, such as "the read models are".
            is_primary: whether positions beyond the end of the log are refused; a replica does not know the end.
        """
        self._database = database
        self._read = read
        self._subject = subject
        self._places = FairShare(WAITING_MAX)
        self._is_primary = is_primary
        self._waiting: dict[asyncio.Future[None], int] = {}
        self._unchecked: dict[asyncio.Future[None], int] = {}
        self._arrived = asyncio.Event()
        self._polling: asyncio.Task[None] | None = None
        self._reached = 0

    async def wait(self, position: int, seconds_max: float = MIN_POSITION_SECONDS_MAX, key: str = "") -> None:
        """Wait until a position is reached.

        Args:
            position: of an event; 0 is always reached.
            seconds_max: the timeout.
            key: the name of the API key that the read counts for.

        Raises:
            Malformed: the log of the primary ends before the position: waiting for it would never end.
            ProjectionBehind: the timeout expired.
            Overloaded: the key has as many waiting reads as its share permits.
            OSError, asyncpg.PostgresError and others: the position cannot be read.
        """
        if not self._places.try_take(key):
            raise Overloaded(f"{self._places.held(key)} reads of this key wait for a position already; retry in 1 s")
        reached = asyncio.get_running_loop().create_future()
        self._waiting[reached] = self._unchecked[reached] = position
        self._arrived.set()
        if self._polling is None or self._polling.done():
            self._polling = asyncio.create_task(self._poll(), name="position-waiters")
        try:
            async with asyncio.timeout(seconds_max):
                await reached
        except TimeoutError:
            if reached.done() and not reached.cancelled():
                raise
            raise ProjectionBehind(
                f"{self._subject} at position {self._reached}, not yet at {position}; retry in a moment"
            ) from None
        finally:
            self._waiting.pop(reached, None)
            self._unchecked.pop(reached, None)
            self._places.give_back(key)

    async def _poll(self) -> None:
        """Poll with back-off while reads wait: notifications announce appended events, not folded ones."""
        backoff = Backoff(POLL_SECONDS_MIN, POLL_SECONDS_MAX, factor=POLL_GROWTH)
        while self._waiting:
            if self._arrived.is_set():
                self._arrived.clear()
                backoff.reset()
            # Only these: the end of the log is read after they arrived, so an append before them is included.
            unchecked, self._unchecked = self._unchecked, {}
            try:
                async with self._database.connection() as connection:
                    self._reached = await self._read(connection)
                    if self._is_primary and max(unchecked.values(), default=0) > self._reached:
                        _refuse_beyond(await read_head(connection), unchecked)
            except Exception as error:  # noqa: BLE001 (passed to the reads that wait)
                self._fail(error)
                return
            self._wake()
            if self._waiting:
                await self._pause(backoff.next())

    async def _pause(self, seconds: float) -> None:
        """Wait before the next poll; only for the shortest time if a read arrives."""
        await asyncio.sleep(POLL_SECONDS_MIN)
        try:
            async with asyncio.timeout(seconds - POLL_SECONDS_MIN):
                await self._arrived.wait()
        except TimeoutError:
            return

    def _wake(self) -> None:
        for waiting, position in list(self._waiting.items()):
            if position <= self._reached:
                self._waiting.pop(waiting)
                if not waiting.done():
                    waiting.set_result(None)

    def _fail(self, error: Exception) -> None:
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(error)
        self._waiting.clear()


def _refuse_beyond(head: int, waiting: dict[asyncio.Future[None], int]) -> None:
    for future, position in waiting.items():
        try:
            require_reached(head, position)
        except Malformed as error:
            if not future.done():
                future.set_exception(error)


def read_model_waiters(database: Database, *, is_primary: bool = True) -> PositionWaiters:
    """Return the queue of reads that wait for the read models of the primary or of a replica."""
    return PositionWaiters(database, read_position, "the read models are", is_primary=is_primary)


def replica_log_waiters(database: Database) -> PositionWaiters:
    """Return the queue of reads that wait for the log of a replica."""
    return PositionWaiters(database, read_head, "the replica's log is")


async def wait_for_read_models(
    database: Database, position: int, seconds_max: float = MIN_POSITION_SECONDS_MAX
) -> None:
    """Wait once until the read models reflect a position; arguments and errors are those of `PositionWaiters.wait`."""
    await read_model_waiters(database).wait(position, seconds_max)
