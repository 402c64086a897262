"""The append pipeline (optimistic path): judges a group while the previous one is being written.

Decision 0035 has the states of the protocol and what each failure discards. The rules:

- One task does everything: at most one group is being written, and at most one is being prepared. The latter grows
  until the write ends.
- A sender is answered after the commit of its group; if the group recorded nothing, after that of the previous one. If
  the next group is prepared by then, it is sent to the database first.
- A load counts only if the head of its snapshot is known: the head after the last judged group, or the head before the
  group that is being written.
- After any failure the working state is dropped, and all unanswered groups are judged again, in order, by the locked
  path.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from ledger.database import Database, log_level
from ledger.domain.judge import Verdict
from ledger.log.append_queue import GROUP_CHARACTERS_MAX, GROUP_EVENTS_MAX, AppendQueue, QueuedRequest
from ledger.log.conflict_pause import ConflictPause
from ledger.log.connection_lease import ConnectionLease
from ledger.log.judge_ahead import HeadMovedError, OptimisticJudge
from ledger.log.locked_recorder import APPEND_SECONDS_MAX, JudgedGroup, LockedRecorder
from ledger.log.write import write_conditionally

logger = logging.getLogger(__name__)

PARTS = 2
"""A group is judged in about this many parts while the previous one is being written."""

PART_EVENTS = 32
"""A part is judged as soon as this many events wait, however large the group that is being written."""

IDLE_SECONDS = 1.0
"""After this time without a request, the connections return to the pool: a serverless database may suspend."""


class _OpenGroup:
    """A group that is being prepared: the requests that have joined it, and the verdicts so far."""

    def __init__(self) -> None:
        self.waiting: list[QueuedRequest] = []
        self.verdicts: list[Verdict] = []
        self.events = 0
        self.characters = 0
        self.began = time.monotonic()

    def add(self, part: list[QueuedRequest]) -> None:
        """Add requests; their verdicts follow."""
        self.waiting += part
        self.events += sum(waiting.events for waiting in part)
        self.characters += sum(waiting.characters for waiting in part)


class _Finished(NamedTuple):
    """The end of a write: whether the working state is still valid, and the groups that must be judged again."""

    is_valid: bool
    unanswered: list[list[QueuedRequest]]


class Pipeline:
    """Takes groups from the queue and records them. Run it as one task; after `close` it ends with the empty queue."""

    def __init__(
        self,
        database: Database,
        queue: AppendQueue,
        *,
        on_append: Callable[[int], None],
        on_group: Callable[[int, float, str], None],
        clock: Callable[[], datetime] | None,
    ) -> None:
        """Make a pipeline.

        Args:
            database: the database of the log; the pipeline uses two connections of its pool.
            queue: the requests to record.
            on_append: called after each group that recorded something, with the position of its last event.
            on_group: called after each group with its number of events, its duration in seconds, and its path:
                `optimistic` or `locked`.
            clock: the time for `recorded_at`; the clock of the database server when None.
        """
        self._queue = queue
        self._on_append = on_append
        self._on_group = on_group
        self._reader = ConnectionLease(database)
        self._writer = ConnectionLease(database)
        self._locked = LockedRecorder(self._writer, queue, lambda judged: self._answer(judged, "locked"), clock)
        self.problem = self._locked.problem
        self._pause = ConflictPause()
        self._judge = OptimisticJudge(self._reader, self._locked.prices, clock)
        self._in_flight: JudgedGroup | None = None
        self._last_events = 0
        self._answered_at = 0.0
        self._write: asyncio.Task[None] | None = None
        # True while a prepared group waits only for the end of the write: it starts before those senders are answered.
        self._can_write_next = False
        self._unanswered: JudgedGroup | None = None
        self._is_closing = False

    def close(self) -> None:
        """Let `run` return once everything in the queue is answered."""
        self._is_closing = True
        self._queue.arrived.set()

    async def run(self) -> None:
        """Record groups until closed."""
        while self._queue or self._write is not None or not self._is_closing:
            if self._queue or self._write is not None:
                await self._advance()
            elif not await self._arrival(IDLE_SECONDS):
                await self._give_connections_back()
                if not self._queue and not self._is_closing:
                    await self._arrival()
        await self._give_connections_back()

    async def _arrival(self, seconds: float | None = None) -> bool:
        """Wait for a request or the end of the write; False after this time without either."""
        self._queue.arrived.clear()
        try:
            async with asyncio.timeout(seconds):
                return await self._queue.arrived.wait()
        except TimeoutError:
            return False

    async def _advance(self) -> None:
        """Prepare a group while the previous one is being written; then start to write it."""
        group, in_flight = _OpenGroup(), self._in_flight
        try:
            is_prepared = True
            while is_prepared and (part := await self._next_part(group)):
                is_prepared = await self._try_to_prepare(group, part)
            self._can_write_next = is_prepared and bool(group.waiting)
            finished = await self._finish_write()
            self._can_write_next = False
            if not is_prepared or not finished.is_valid:
                await self._record_locked([*finished.unanswered, group.waiting])
            elif group.waiting:
                await self._end_group(group)
        except Exception as error:
            what = "the append pipeline failed; continuing with an empty working state"
            logger.log(log_level(error, logging.ERROR), what, exc_info=error)
            self._judge.reset()
            self._locked.fail([*(in_flight.waiting if in_flight is not None else ()), *group.waiting], error)
        finally:
            self._answer_written()

    async def _next_part(self, group: _OpenGroup) -> list[QueuedRequest]:
        """Return the next requests of a group; none if it has to be written now."""
        while self._write is not None and not self._write.done():
            if group.events >= GROUP_EVENTS_MAX:
                return []
            if self._queue.events >= self._part_events_min() and not self._queue.should_yield():
                return self._queue.take_group(
                    GROUP_EVENTS_MAX - group.events,
                    GROUP_CHARACTERS_MAX - group.characters,
                    at_least_one=not group.waiting,
                )
            self._can_write_next = bool(group.waiting)
            await self._arrival()
            self._can_write_next = False
        if group.waiting or self._write is not None:
            return []
        while (delay := self._queue.delay()) and not self._is_closing:
            began = time.monotonic()
            await self._arrival(delay.seconds)
            self._queue.charge_delay(delay, time.monotonic() - began)
        queued = self._queue.events
        if queued >= self._last_events and self._pause.is_over(time.monotonic()):
            # All senders of the last group wait again: the others are prepared while these are written.
            queued //= 2
        return self._queue.take_group(min(GROUP_EVENTS_MAX, queued))

    def _part_events_min(self) -> int:
        """Return how many events are judged at once during a write: not too few, since each load has a fixed cost."""
        assert self._in_flight is not None
        return min(PART_EVENTS, max(1, len(self._in_flight.group.events) // PARTS))

    async def _try_to_prepare(self, group: _OpenGroup, part: list[QueuedRequest]) -> bool:
        """Judge requests that join a group; False: the locked path has to record the whole group."""
        is_first = not group.waiting
        group.add(part)
        if not self._pause.is_over(time.monotonic()) or _needs_lock(part):
            return False
        try:
            if is_first:
                await self._drop_full_state()
            head_before_write = self._in_flight.group.before if self._in_flight is not None else None
            group.verdicts += await self._judge.judge([waiting.request for waiting in part], head_before_write)
        except HeadMovedError:
            self._pause.start(time.monotonic())
        except TimeoutError as error:
            await self._reader.close(error)
            self._locked.fail([*group.waiting, *self._queue.take_all()], error)
        except Exception as error:  # noqa: BLE001 (the locked path tries again, and reports what fails twice)
            logger.log(log_level(error), "judging %d requests failed; retrying: %r", len(group.waiting), error)
            await self._reader.close(error)
        else:
            return True
        return False

    async def _drop_full_state(self) -> None:
        """Drop a full working state. The next one is loaded from the log, so it waits for the write in flight."""
        if self._judge.is_full:
            if self._write is not None:
                await asyncio.wait([self._write])
            self._judge.reset()

    async def _end_group(self, open_group: _OpenGroup) -> None:
        """Start to write a prepared group, or answer it if it recorded nothing. No write is in flight."""
        group = await self._judge.end_group()
        self._last_events = open_group.events
        judged = JudgedGroup(open_group.waiting, open_group.verdicts, group, open_group.began)
        if group.events:
            self._start_write(judged)
            # The write is sent to the database before the senders of the previous group are answered.
            await asyncio.sleep(0)
        else:
            self._answer_written()
            self._answer(judged, "optimistic")

    def _start_write(self, prepared: JudgedGroup) -> None:
        self._in_flight = prepared
        self._write = asyncio.create_task(self._write_group(prepared), name="append write")
        self._write.add_done_callback(lambda _: self._queue.arrived.set())

    async def _write_group(self, prepared: JudgedGroup) -> None:
        connection = await self._writer.get()
        async with asyncio.timeout(APPEND_SECONDS_MAX):
            if not await write_conditionally(connection, prepared.group):
                raise HeadMovedError("another process has appended")
        self._answer_written()
        self._unanswered = prepared
        if not self._can_write_next:
            self._answer_written()

    async def _finish_write(self) -> _Finished:
        """Wait for the end of the write, if there is one."""
        write, in_flight = self._write, self._in_flight
        self._write = self._in_flight = None
        if write is None or in_flight is None:
            return _Finished(True, [])
        try:
            await write
        except HeadMovedError:
            self._pause.start(time.monotonic())
        except TimeoutError as error:
            await self._writer.close(error)
            self._locked.fail([*in_flight.waiting, *self._queue.take_all()], error)
            return _Finished(False, [])
        except Exception as error:  # noqa: BLE001 (the locked path tries again, and reports what fails twice)
            logger.log(log_level(error), "writing %d requests failed; retrying: %r", len(in_flight.waiting), error)
            await self._writer.close(error)
        else:
            return _Finished(True, [])
        return _Finished(False, [in_flight.waiting])

    async def _record_locked(self, groups: list[list[QueuedRequest]]) -> None:
        """Judge unanswered groups again by the locked path, in order; the state after them is used from then on."""
        self._judge.reset()
        for group in filter(None, groups):
            self._judge.reset(*await self._locked.record(group))

    def _answer_written(self) -> None:
        """Answer the group that was written, unless that has been done."""
        written, self._unanswered = self._unanswered, None
        if written is not None:
            self._answer(written, "optimistic")

    def _answer(self, judged: JudgedGroup, path: str) -> None:
        """Answer the senders of a group, which is durable or recorded nothing."""
        for waiting, verdict in zip(judged.waiting, judged.verdicts, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(verdict)
        now = time.monotonic()
        # The time before the previous answer was charged to the group of that answer.
        self._queue.charge(judged.waiting, now - max(judged.began, self._answered_at))
        self._answered_at = now
        if judged.group.events:
            self._locked.record_success()
            self._on_append(judged.group.after.position)
        self._on_group(sum(waiting.events for waiting in judged.waiting), now - judged.began, path)

    async def _give_connections_back(self) -> None:
        await self._reader.give_back()
        await self._writer.give_back()


def _needs_lock(group: list[QueuedRequest]) -> bool:
    """Whether a group has an event of category `ledger`: erasing a text changes an event, under the head lock."""
    return any(
        candidate.event_type.category == "ledger" for waiting in group for candidate in waiting.request.candidates
    )
