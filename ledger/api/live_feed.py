"""The live feed: one reader of the log a process, however many listen.

While somebody listens, the reader tails the log into a window of recent events and wakes the listeners once a batch.
Who is behind the window reads the log for himself until he is in it again.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import msgspec

from ledger.api.recent_events import Part, RecentEvents, frame
from ledger.backoff import Backoff
from ledger.database import Connection, Database
from ledger.log.notifications import LogSignal
from ledger.log.read import EventFilter, read_head, read_page

if TYPE_CHECKING:
    pass

logger = logging.getLogger(__name__)

BATCH_EVENTS_MAX = 1_000
"""Encoding so many holds up everything else in the process for about 10 ms."""

GATHER_SECONDS = 0.02
"""After a batch that reached the head, events gather for so long: listeners are woken 50 times a second at most."""

WAKE_LISTENERS = 100
"""So many are woken at a time, which takes about 5 ms: an append must not wait until thousands have been served."""

CATCH_UP_EVENTS_MAX = 256
CATCH_UP_CHARACTERS_MAX = 64 * 1024
"""Who is behind holds no more than so much while he writes: there may be thousands."""

CATCH_UP_READERS_MAX = 2
"""All who are behind share so many connections: appending must never wait for them."""

READ_SECONDS_MAX = 30.0
IDLE_SECONDS_MIN = 1.0

RETRY_SECONDS_MIN = 0.1
RETRY_SECONDS_MAX = 5.0

CLOSE_SECONDS = 0.5
CLOSE_SECONDS_EACH = 0.0005
"""Listeners who are not done so long after the feed was closed are cut off; thousands take longer to be ended."""


class LiveFeed:
    """Where listeners get the events from. Enter it to have its reader run."""

    def __init__(self, database: Database, signal: LogSignal) -> None:
        self._database = database
        self._signal = signal
        self._window: RecentEvents | None = None
        self._lives: set[asyncio.Timeout] = set()
        self._attended = asyncio.Event()
        self._turns = asyncio.Semaphore(CATCH_UP_READERS_MAX)
        self._failing = False
        self.closed = False
        self.news = LogSignal()
        """Rings when there is something new to take, or the feed is closed."""

    async def __aenter__(self) -> "LiveFeed":
        self._reader = asyncio.create_task(self._tail(), name="feed")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reader.cancel()
        with suppress(asyncio.CancelledError):
            await self._reader

    def close(self) -> None:
        """End every listener: at once those who wait, a little later those who do not read."""
        if not self.closed:
            self.closed = True
            self.news.notify()
            seconds = CLOSE_SECONDS + CLOSE_SECONDS_EACH * len(self._lives)
            for life in self._lives:
                life.reschedule(asyncio.get_running_loop().time() + seconds)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Be a listener while inside.

        Raises:
            TimeoutError: the feed was closed, and what is inside took too long to end.
        """
        async with asyncio.timeout(None) as life:
            self._lives.add(life)
            self._attended.set()
            try:
                yield
            finally:
                self._lives.discard(life)
                if not self._lives:
                    self._attended.clear()

    async def log_head(self) -> int:
        """Where the log ends now; raises where the database is away."""
        async with self._turns, self._connection() as connection:
            return await read_head(connection)

    def recent(self, wanted: EventFilter, after: int) -> Part | None:
        """The next events after a position; None where the window does not reach back so far."""
        if self._window is None:
            return Part(b"", after)
        return self._window.part(wanted, after) if after >= self._window.floor else None

    def is_ahead_of(self, position: int) -> bool:
        """Whether there is more to look at after this position."""
        return self._window is not None and self._window.head > position

    async def catch_up(self, wanted: EventFilter, after: int) -> Part:
        """Read the next events after a position from the log itself; in an outage, try until it is over."""
        backoff = Backoff(RETRY_SECONDS_MIN, RETRY_SECONDS_MAX)
        while True:
            try:
                async with self._turns, self._connection() as connection:
                    # Nothing that is wanted up to here is nothing up to here: one page can pass over a whole log.
                    head = await read_head(connection)
                    following = msgspec.structs.replace(wanted, after=after, until=head)
                    page = await read_page(connection, following, CATCH_UP_EVENTS_MAX, CATCH_UP_CHARACTERS_MAX)
            except Exception as error:  # noqa: BLE001 (noted once an outage, and tried again)
                self._note(error)
                await asyncio.sleep(backoff.next())
            else:
                self._note(None)
                return Part(b"".join(map(frame, page)), page[-1].position if page else max(after, head))

    async def _tail(self) -> None:
        """Read what is new for ever, while somebody listens."""
        retry = Backoff(RETRY_SECONDS_MIN, RETRY_SECONDS_MAX)
        idle = Backoff(IDLE_SECONDS_MIN)
        while True:
            if not self._attended.is_set():
                # Much may come until somebody listens again, and whoever wants that reads it for himself.
                self._window = None
                await self._attended.wait()
            seen = self._signal.generation
            try:
                is_at_head = await self._read_batch()
            except Exception as error:  # noqa: BLE001 (noted once an outage, and tried again)
                self._note(error)
                # A ring says that somebody could append: the database is back.
                await self._signal.wait(self._signal.generation, retry.next())
                continue
            self._note(None)
            retry.reset()
            if is_at_head:
                await asyncio.sleep(GATHER_SECONDS)
                await self._signal.wait(seen, idle.next(self._signal.idle_seconds_max))
                # A ring may be lost: look again soon while things happen, seldom after a long silence.
                if self._signal.generation > seen:
                    idle.reset()

    async def _read_batch(self) -> bool:
        """Let the window grow by what is new; whether that was all."""
        window = self._window
        async with self._connection() as connection:
            head = await read_head(connection)
            page = []
            if window is not None and window.head < head:
                page = await read_page(connection, EventFilter(after=window.head, until=head), BATCH_EVENTS_MAX)
        if window is None or head < window.head:
            # The feed begins, or begins again over a log that was reset.
            self._window = RecentEvents(head)
        elif head > window.head:
            window.grow(page, page[-1].position if page else head)
        else:
            return True
        await self.news.notify_in_batches(WAKE_LISTENERS)
        return self._window is not None and self._window.head >= head

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        """Borrow a connection for a short time."""
        async with asyncio.timeout(READ_SECONDS_MAX), self._database.connection() as connection:
            yield connection

    def _note(self, error: Exception | None) -> None:
        """Log the beginning and the end of an outage, not every try of everybody."""
        if error is not None and not self._failing:
            logger.warning("the live feed cannot read the log: %s; it tries again", type(error).__name__)
        elif error is None and self._failing:
            logger.warning("the live feed reads the log again")
        self._failing = error is not None
