"""Group commit: requests that arrive during an append transaction share the next one.

One task holds one connection while requests are queued. The queue is bounded: if it is full, requests are refused at
once, so that memory stays bounded and clients retry later.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

import asyncpg
from sqlalchemy.exc import SQLAlchemyError

from ledger.database import CONNECTION_ERRORS, Connection, Database
from ledger.domain.errors import DatabaseUnavailable, Overloaded
from ledger.domain.event import Request
from ledger.log.append import Verdict, append

logger = logging.getLogger(__name__)

GROUP_EVENTS_MAX = 2_000
"""The most events in a group: with more, throughput hardly grows, and latency does."""

APPEND_SECONDS_MAX = 10
"""Timeout of an append; then clients receive `DatabaseUnavailable`."""

QUEUE_EVENTS_MAX = 20_000
QUEUE_CHARACTERS_MAX = 64 * 1024 * 1024

RETRY_ERRORS = (
    asyncpg.UniqueViolationError,
    asyncpg.LockNotAvailableError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    *CONNECTION_ERRORS,
    SQLAlchemyError,
)
"""After these errors a group is retried once. That is safe whether or not the first attempt committed: an event id is
recorded at most once."""

UNAVAILABLE_ERRORS = (*RETRY_ERRORS, TimeoutError)
"""After these errors clients may retry. The appender does not retry after a timeout: clients would wait twice."""


class _Queued(NamedTuple):
    request: Request
    verdict: "asyncio.Future[Verdict]"
    events: int
    characters: int


class Appender:
    """Appends every event of a process to the log. Use it as an async context manager; on exit it drains the queue."""

    def __init__(
        self,
        database: Database,
        *,
        on_append: Callable[[int], None] = lambda position: None,
        on_group: Callable[[int, float], None] = lambda events, seconds: None,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        """Make an appender.

        Args:
            database: the database of the log.
            on_append: called after each group with the position of the last event in the log.
            on_group: called after each group with its number of events and its duration in seconds.
            clock: the time for `recorded_at`; the clock of the database server when None.
        """
        self._database = database
        self._on_append = on_append
        self._on_group = on_group
        self._clock = clock
        self._queue: deque[_Queued] = deque()
        self._events = 0
        self._characters = 0
        self._arrived = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Appender":
        self._task = asyncio.create_task(self._run(), name="appender")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        self._arrived.set()
        assert self._task is not None
        await self._task

    async def append(self, request: Request) -> Verdict:
        """Judge and record a request. On return its accepted events are durable.

        Raises:
            Overloaded: the queue is full, or the process is stopping; nothing was recorded.
            DatabaseUnavailable: the database failed; retry with the same ids.
        """
        events = len(request.candidates)
        characters = sum(len(candidate.data) + len(candidate.text or "") for candidate in request.candidates)
        is_full = self._events + events > QUEUE_EVENTS_MAX or self._characters + characters > QUEUE_CHARACTERS_MAX
        if self._closing or (is_full and self._queue):
            raise Overloaded("too many events are waiting to be recorded; retry in 1 s")
        verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._queue.append(_Queued(request, verdict, events, characters))
        self._events += events
        self._characters += characters
        self._arrived.set()
        return await verdict

    async def _run(self) -> None:
        while self._queue or not self._closing:
            if not self._queue:
                await self._arrived.wait()
                self._arrived.clear()
                continue
            group: list[_Queued] = []
            try:
                async with self._database.connection() as connection:
                    while self._queue:
                        group = self._dequeue_group()
                        await self._record(connection, group, self._begin_next)
                        group = []
            except Exception as error:  # noqa: BLE001 (passed to the clients that wait)
                # The connection is closed by now, and its locks are released.
                if group and not isinstance(error, TimeoutError):
                    await self._retry(group, error)
                else:
                    group += [self._dequeue() for _ in range(len(self._queue))]
                    logger.warning("%d requests failed: %s", len(group), type(error).__name__)
                    self._fail(group, error)

    def _begin_next(self) -> bool:
        # A transaction-mode pooler never gets a connection back on which one transaction follows the other directly.
        return bool(self._queue) and not self._database.is_pooled

    def _dequeue(self) -> _Queued:
        queued = self._queue.popleft()
        self._events -= queued.events
        self._characters -= queued.characters
        return queued

    def _dequeue_group(self) -> list[_Queued]:
        group = [self._dequeue()]
        events = group[0].events
        while self._queue and events + self._queue[0].events <= GROUP_EVENTS_MAX:
            group.append(self._dequeue())
            events += group[-1].events
        return group

    async def _record(
        self,
        connection: Connection,
        group: list[_Queued],
        begin_next: Callable[[], bool] = lambda: False,
    ) -> None:
        group = [queued for queued in group if not queued.verdict.cancelled()]
        now = self._clock() if self._clock else None
        started = time.monotonic()
        async with asyncio.timeout(APPEND_SECONDS_MAX):
            verdicts, position = await append(connection, [queued.request for queued in group], now, begin_next)
        for queued, verdict in zip(group, verdicts, strict=True):
            if not queued.verdict.done():
                queued.verdict.set_result(verdict)
        self._on_append(position)
        self._on_group(sum(queued.events for queued in group), time.monotonic() - started)

    async def _retry(self, group: list[_Queued], error: Exception) -> None:
        """Retry a failed group: as a whole if the database failed, request by request if one of them is at fault."""
        logger.warning("appending %d requests failed; retrying", len(group), exc_info=error)
        parts = [group] if isinstance(error, RETRY_ERRORS) else [[queued] for queued in group]
        for part in parts:
            try:
                async with self._database.connection() as connection:
                    await self._record(connection, part)
            except Exception as second_error:
                logger.exception("appending %d requests failed twice", len(part))
                self._fail(part, second_error)

    def _fail(self, group: list[_Queued], error: Exception) -> None:
        for queued in group:
            if queued.verdict.done():
                continue
            if isinstance(error, UNAVAILABLE_ERRORS):
                failure: Exception = DatabaseUnavailable(
                    "the database did not answer; retry with the same ids: each event is recorded at most once"
                )
            else:
                failure = error
            queued.verdict.set_exception(failure)
