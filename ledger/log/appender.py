"""The appender of a process: queues requests, which the pipeline records in groups (group commit)."""

import asyncio
from collections.abc import Callable
from datetime import datetime

from ledger.database import Database
from ledger.domain.errors import Overloaded
from ledger.domain.event import Request
from ledger.domain.judge import Verdict
from ledger.log.append_queue import AppendQueue
from ledger.log.pipeline import Pipeline


class Appender:
    """Appends requests. Use it as an async context manager; on exit it drains the queue."""

    def __init__(
        self,
        database: Database,
        *,
        on_append: Callable[[int], None] = lambda position: None,
        on_group: Callable[[int, float, str], None] = lambda events, seconds, path: None,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        """Make an appender.

        Args:
            database: the database of the log; the appender uses two connections of its pool.
            on_append: called after each group that recorded something, with the position of its last event.
            on_group: called after each group with its number of events, its duration in seconds, and its path:
                `optimistic` or `locked`.
            clock: the time for `recorded_at`; the clock of the database server when None.
        """
        self._queue = AppendQueue()
        self._pipeline = Pipeline(database, self._queue, on_append=on_append, on_group=on_group, clock=clock)
        self._is_closing = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Appender":
        self._task = asyncio.create_task(self._pipeline.run(), name="appender")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_closing = True
        self._pipeline.close()
        assert self._task is not None
        await self._task

    async def append(self, request: Request) -> Verdict:
        """Judge and record a request. On return its accepted events are durable.

        Raises:
            Overloaded: the key has queued more than its share, or the process is stopping; nothing was recorded.
            DatabaseUnavailable: the database failed; retry with the same ids.
        """
        return await self.submit(request)

    def problem(self) -> str | None:
        """Return the disk error of an append in the last 10 s; None if there is none, or one succeeded since."""
        return self._pipeline.problem()

    def require_room(self, actor: str, events: int) -> None:
        """Raise `Overloaded` if a key could not queue this many events now."""
        self._queue.require_room(actor, events)

    def submit(self, request: Request) -> "asyncio.Future[Verdict]":
        """Queue a request, and return the future of its verdict. Raises as `append` does."""
        if self._is_closing:
            raise Overloaded("the service is stopping; retry in 1 s")
        return self._queue.put(request)
