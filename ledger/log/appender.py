"""Group commit: what arrives while a transaction runs is committed together by the next one.

One task holds one connection while there is work. The queue is bounded; a full queue refuses at once, so that memory
stays bounded and the sender can come back later.
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
"""A group stops growing here: past it, throughput gains little and the wait grows."""

APPEND_SECONDS_MAX = 10
"""After so long without an answer from the database the senders are told to come again."""

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
"""After these the group is sent once more: identities make that safe, whatever became of the first try."""

UNAVAILABLE_ERRORS = (*RETRY_ERRORS, TimeoutError)
"""After these the senders may come again; whoever has waited out a time limit is not made to wait for another."""


class _Waiting(NamedTuple):
    request: Request
    answer: "asyncio.Future[Verdict]"
    events: int
    characters: int


class Appender:
    """The one door into the log for a process. Start it with `async with`; leaving drains what was accepted."""

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
            database: where the log is.
            on_append: called with the position of the last event after each group.
            on_group: called with the number of events that were sent in a group, and the seconds that it took.
            clock: the server's own when None.
        """
        self._database = database
        self._on_append = on_append
        self._on_group = on_group
        self._clock = clock
        self._queue: deque[_Waiting] = deque()
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
        """Have a request judged and recorded; on return its accepted events are durable.

        Raises:
            Overloaded: the queue is full, or the service is stopping; nothing was taken.
            DatabaseUnavailable: the database failed; retry with the same ids.
        """
        events = len(request.candidates)
        characters = sum(len(candidate.data) + len(candidate.text or "") for candidate in request.candidates)
        full = self._events + events > QUEUE_EVENTS_MAX or self._characters + characters > QUEUE_CHARACTERS_MAX
        if self._closing or (full and self._queue):
            raise Overloaded("too many events are waiting to be recorded; send this again in a second")
        answer: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(request, answer, events, characters))
        self._events += events
        self._characters += characters
        self._arrived.set()
        return await answer

    async def _run(self) -> None:
        while self._queue or not self._closing:
            if not self._queue:
                await self._arrived.wait()
                self._arrived.clear()
                continue
            group: list[_Waiting] = []
            try:
                async with self._database.connection() as connection:
                    while self._queue:
                        group = self._take_group()
                        await self._record(connection, group, self._begin_next)
                        group = []
            except Exception as error:  # noqa: BLE001 (whoever waits is told of it)
                # Here the connection is closed, and with it what it held locked.
                if group and not isinstance(error, TimeoutError):
                    await self._once_more(group, error)
                else:
                    group += [self._take() for _ in range(len(self._queue))]
                    logger.warning("no answer for %d requests: %s", len(group), type(error).__name__)
                    self._fail(group, error)

    def _begin_next(self) -> bool:
        # A pooler in transaction mode would never get back a connection on which one transaction follows the other.
        return bool(self._queue) and not self._database.is_pooled

    def _take(self) -> _Waiting:
        waiting = self._queue.popleft()
        self._events -= waiting.events
        self._characters -= waiting.characters
        return waiting

    def _take_group(self) -> list[_Waiting]:
        group = [self._take()]
        events = group[0].events
        while self._queue and events + self._queue[0].events <= GROUP_EVENTS_MAX:
            group.append(self._take())
            events += group[-1].events
        return group

    async def _record(
        self,
        connection: Connection,
        group: list[_Waiting],
        begin_next: Callable[[], bool] = lambda: False,
    ) -> None:
        group = [waiting for waiting in group if not waiting.answer.cancelled()]
        now = self._clock() if self._clock else None
        began = time.monotonic()
        async with asyncio.timeout(APPEND_SECONDS_MAX):
            verdicts, position = await append(connection, [waiting.request for waiting in group], now, begin_next)
        for waiting, verdict in zip(group, verdicts, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(verdict)
        self._on_append(position)
        self._on_group(sum(waiting.events for waiting in group), time.monotonic() - began)

    async def _once_more(self, group: list[_Waiting], error: Exception) -> None:
        """Send a failed group again: as it was after the database failed, one by one after a request of it did."""
        logger.warning("append of %d requests failed, once more", len(group), exc_info=error)
        together = isinstance(error, RETRY_ERRORS)
        for part in [group] if together else [[waiting] for waiting in group]:
            try:
                async with self._database.connection() as connection:
                    await self._record(connection, part)
            except Exception as again:
                logger.exception("append of %d requests failed twice", len(part))
                self._fail(part, again)

    def _fail(self, group: list[_Waiting], error: Exception) -> None:
        for waiting in group:
            if waiting.answer.done():
                continue
            if isinstance(error, UNAVAILABLE_ERRORS):
                failure: Exception = DatabaseUnavailable(
                    "the database did not answer; send this again with the same ids, it will be recorded once"
                )
            else:
                failure = error
            waiting.answer.set_exception(failure)
