"""The live feed: one task per process tails the log for all subscribers of GET /v1/events/stream.

While there are subscribers, the task reads new events into a window of recent events and wakes the subscribers once
per batch. A subscriber that is behind the window reads the log itself until it has caught up.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import msgspec

from ledger.api.recent_events import Chunk, RecentEvents, server_sent_event
from ledger.backoff import Backoff
from ledger.database import Connection, Database, log_level
from ledger.domain.errors import Overloaded
from ledger.fair_share import FairShare
from ledger.log.notifications import LogSignal
from ledger.log.point_in_time import require_reached
from ledger.log.read import EventFilter, read_head, read_page

logger = logging.getLogger(__name__)

BATCH_EVENTS_MAX = 1_000
"""Encoding this many events blocks the event loop for about 10 ms."""

GATHER_SECONDS = 0.02
"""Pause after a batch that reached the head, so that subscribers are woken at most 50 times per second."""

WAKE_SUBSCRIBERS = 100
"""Subscribers woken at a time, which takes about 5 ms: an append must not wait until thousands have been served."""

CATCH_UP_EVENTS_MAX = 256
CATCH_UP_CHARACTERS_MAX = 64 * 1024
"""The most that a subscriber that is behind holds in memory while it writes; there may be thousands."""

CATCH_UP_READERS_MAX = 3
"""Database connections of all subscribers that are behind, at most two of them for one key."""

MEMORY_BYTES_MAX = 64 * 1024 * 1024
"""Limit of the events that subscribers are writing, with a share for each key; the others wait before they read."""

READ_SECONDS_MAX = 30.0
IDLE_SECONDS_MIN = 1.0

RETRY_SECONDS_MIN = 0.1
RETRY_SECONDS_MAX = 5.0

CLOSE_SECONDS = 0.5
CLOSE_SECONDS_EACH = 0.0005
"""Time for subscribers to end after the feed was closed; then they are aborted. Thousands need longer."""


class LiveFeed:
    """The source of events for subscribers. Its reader runs inside the context."""

    def __init__(self, database: Database, signal: LogSignal, subscribers_max: int) -> None:
        """Make the feed of a process.

        Args:
            database: the database of the log.
            signal: notified when the log has new events.
            subscribers_max: the most subscribers; each key gets a share of them.
        """
        self._database = database
        self._signal = signal
        self._window: RecentEvents | None = None
        self._subscribers: set[asyncio.Timeout] = set()
        self._has_subscribers = asyncio.Event()
        self._catch_up_readers = FairShare(CATCH_UP_READERS_MAX)
        self._share = FairShare(subscribers_max)
        self.memory = FairShare(MEMORY_BYTES_MAX)
        self._is_failing = False
        self._level = logging.WARNING
        self.closed = False
        self.resets = 0
        """How often the log was found to be shorter than before. A subscriber may be beyond its new end, so all end."""
        self.updated = LogSignal()
        """Notified when the window has new events, or the feed is closed."""

    async def __aenter__(self) -> "LiveFeed":
        self._reader = asyncio.create_task(self._tail(), name="feed")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reader.cancel()
        with suppress(asyncio.CancelledError):
            await self._reader

    def close(self) -> None:
        """End all subscribers: waiting ones at once, ones that do not read after a short time."""
        if not self.closed:
            self.closed = True
            self.updated.notify()
            seconds = CLOSE_SECONDS + CLOSE_SECONDS_EACH * len(self._subscribers)
            for subscriber in self._subscribers:
                subscriber.reschedule(asyncio.get_running_loop().time() + seconds)

    @contextmanager
    def admit(self, key: str) -> Iterator[None]:
        """Count a subscriber of a key inside the context.

        Raises:
            Overloaded: the key has its share of the subscribers already.
        """
        if not self._share.try_take(key):
            raise Overloaded(f"this key has {self._share.held(key)} open event streams; retry in 1 s")
        try:
            yield
        finally:
            self._share.give_back(key)

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[None]:
        """Be a subscriber inside the context.

        Raises:
            TimeoutError: the feed was closed, and the context did not end in time.
        """
        async with asyncio.timeout(None) as timeout:
            self._subscribers.add(timeout)
            self._has_subscribers.set()
            try:
                yield
            finally:
                self._subscribers.discard(timeout)
                if not self._subscribers:
                    self._has_subscribers.clear()

    async def read_head(self, key: str) -> int:
        """Return the position of the last event in the log; raises if the database cannot be reached."""
        async with self._catch_up_readers.hold(key), self._connection() as connection:
            return await read_head(connection)

    async def require_position(self, position: int, key: str) -> None:
        """Check that the log reaches the position after which a subscriber starts.

        Args:
            position: the position.
            key: the name of the subscriber's API key.

        Raises:
            Malformed: the log ends before it.
            OSError, asyncpg.PostgresError and others: the database cannot be reached.
        """
        if self._window is None or position > self._window.head:
            require_reached(await self.read_head(key), position)

    def next_chunk(self, event_filter: EventFilter, after: int) -> Chunk | None:
        """Return the next events after a position; None if they are no longer in the window."""
        if self._window is None:
            return Chunk(b"", after)
        return self._window.next_chunk(event_filter, after) if after >= self._window.floor else None

    def has_events_after(self, position: int) -> bool:
        """Whether the window reaches beyond this position."""
        return self._window is not None and self._window.head > position

    async def catch_up(self, event_filter: EventFilter, after: int, key: str) -> Chunk:
        """Read the next events after a position from the log; during an outage, retry until it is over.

        Args:
            event_filter: the events of the subscriber.
            after: the position up to which the subscriber has seen the log.
            key: the name of its API key.

        Returns:
            The events, and the position up to which they reach.
        """
        backoff = Backoff(RETRY_SECONDS_MIN, RETRY_SECONDS_MAX)
        while True:
            try:
                async with self._catch_up_readers.hold(key), self._connection() as connection:
                    # If nothing matches, one page skips to the head, or a search to the end of its part of the log.
                    head = await read_head(connection)
                    following = msgspec.structs.replace(event_filter, after=after).window(head)
                    page = await read_page(connection, following, CATCH_UP_EVENTS_MAX, CATCH_UP_CHARACTERS_MAX)
            except Exception as error:  # noqa: BLE001 (logged once per outage, and retried)
                self._record_result(error)
                await asyncio.sleep(backoff.next())
            else:
                self._record_result(None)
                return Chunk(
                    b"".join(map(server_sent_event, page)),
                    page[-1].position if page else max(after, following.until or head),
                )

    async def _tail(self) -> None:
        """Read new events into the window forever, while there are subscribers."""
        retry = Backoff(RETRY_SECONDS_MIN, RETRY_SECONDS_MAX)
        idle = Backoff(IDLE_SECONDS_MIN)
        while True:
            if not self._has_subscribers.is_set():
                # The log may grow a lot until the next subscriber, which then reads the missing events from the log.
                self._window = None
                await self._has_subscribers.wait()
            seen = self._signal.generation
            try:
                is_at_head = await self._read_batch()
            except Exception as error:  # noqa: BLE001 (logged once per outage, and retried)
                self._record_result(error)
                # A notification means that an append succeeded: the database is back.
                await self._signal.wait(self._signal.generation, retry.next())
                continue
            self._record_result(None)
            retry.reset()
            if is_at_head:
                await asyncio.sleep(GATHER_SECONDS)
                await self._signal.wait(seen, idle.next(self._signal.idle_seconds_max))
                # A notification may be lost, so poll: soon after activity, rarely after a long silence.
                if self._signal.generation > seen:
                    idle.reset()

    async def _read_batch(self) -> bool:
        """Add the next batch of new events to the window; return whether it reached the head."""
        window = self._window
        async with self._connection() as connection:
            head = await read_head(connection)
            page = []
            if window is not None and window.head < head:
                page = await read_page(connection, EventFilter(after=window.head, until=head), BATCH_EVENTS_MAX)
        if window is None or head < window.head:
            # The first batch, or the log was reset.
            self.resets += window is not None
            self._window = RecentEvents(head)
        elif head > window.head:
            window.append(page, page[-1].position if page else head)
        else:
            return True
        await self.updated.notify_in_batches(WAKE_SUBSCRIBERS)
        return self._window is not None and self._window.head >= head

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        """Borrow a connection, at most for `READ_SECONDS_MAX`."""
        async with asyncio.timeout(READ_SECONDS_MAX), self._database.connection() as connection:
            yield connection

    def _record_result(self, error: Exception | None) -> None:
        """Log the start and the end of a failure, not every failed attempt, and no outage: the pool logs those."""
        if error is not None and not self._is_failing:
            # A timeout may concern only the feed, so the pool does not log it.
            self._level = logging.WARNING if isinstance(error, TimeoutError) else log_level(error)
            logger.log(self._level, "the live feed cannot read the log: %s; retrying", type(error).__name__)
        elif error is None and self._is_failing:
            logger.log(self._level, "the live feed reads the log again")
        self._is_failing = error is not None
