"""Records groups of appends by the locked path; after one failed retry, the senders receive the error."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

import asyncpg
from sqlalchemy.exc import SQLAlchemyError

from ledger.database import CONFLICT_ERRORS, CONNECTION_ERRORS, log_level, outage_reason
from ledger.domain.errors import DatabaseUnavailable
from ledger.domain.judge import Verdict
from ledger.log.append import append_group
from ledger.log.append_queue import AppendQueue, QueuedRequest
from ledger.log.connection_lease import ConnectionLease
from ledger.log.load import Head
from ledger.log.price_cache import PriceCache
from ledger.log.resident_state import ResidentState
from ledger.log.write import Group

logger = logging.getLogger(__name__)

APPEND_SECONDS_MAX = 10
"""Timeout of an append; then clients receive `DatabaseUnavailable`."""

RETRY_ERRORS = (
    asyncpg.UniqueViolationError,
    *CONFLICT_ERRORS,
    *CONNECTION_ERRORS,
    SQLAlchemyError,
)
"""After these errors a group is retried as a whole. That is safe whether or not the first attempt committed: an event
id is recorded at most once."""

UNAVAILABLE_ERRORS = (*RETRY_ERRORS, TimeoutError)
"""After these errors clients may retry. The recorder does not retry after a timeout: clients would wait twice."""


DISK_ERRORS = (asyncpg.InsufficientResourcesError, asyncpg.PostgresSystemError)
"""After these errors the server still answers reads."""

FAILURE_SECONDS = 10.0
"""A disk error counts as a problem for this time, unless a group is written earlier: then clients may try again."""


class JudgedGroup(NamedTuple):
    """A judged group: its requests, their verdicts, what is written, and when it began, on the monotonic clock."""

    waiting: list[QueuedRequest]
    verdicts: list[Verdict]
    group: Group
    began: float


class LockedRecorder:
    """Records groups by the locked path and answers their senders."""

    def __init__(
        self,
        writer: ConnectionLease,
        queue: AppendQueue,
        answer: Callable[[JudgedGroup], None],
        clock: Callable[[], datetime] | None,
    ) -> None:
        """Make a recorder.

        Args:
            writer: the connection to use.
            queue: emptied after a timeout: its requests would only wait for the next one.
            answer: called with each group that was recorded.
            clock: the time for `recorded_at`; the clock of the database server when None.
        """
        self._writer = writer
        self._queue = queue
        self._answer = answer
        self.prices = PriceCache()
        self._clock = clock
        self._failed_at = -FAILURE_SECONDS
        self._reason = ""

    def problem(self) -> str | None:
        """Return the disk error of the last append; None if there is none, or none for `FAILURE_SECONDS`."""
        return self._reason if time.monotonic() - self._failed_at < FAILURE_SECONDS else None

    def record_success(self) -> None:
        """Record that a group was written."""
        self._failed_at = -FAILURE_SECONDS

    async def record(self, group: Sequence[QueuedRequest]) -> tuple[ResidentState | None, Head | None]:
        """Record a group; return the working state after it and the head, or None for both if they are unknown."""
        waiting = [queued for queued in group if not queued.answer.done()]
        self._queue.charge([queued for queued in group if queued.answer.done()], 0.0)
        if not waiting:
            return None, None
        try:
            return await self._attempt(waiting)
        except TimeoutError as error:
            self.fail([*waiting, *self._queue.take_all()], error)
        except Exception as error:
            logger.log(log_level(error), "appending %d requests failed; retrying", len(waiting), exc_info=error)
            # If the database did not fail, one of the requests may be the cause: retry each separately.
            parts = [waiting] if isinstance(error, RETRY_ERRORS) else [[queued] for queued in waiting]
            for part in parts:
                try:
                    await self._attempt(part)
                except Exception as second_error:
                    level = log_level(second_error, logging.ERROR)
                    logger.log(level, "appending %d requests failed twice", len(part), exc_info=second_error)
                    self.fail(part, second_error)
        return None, None

    async def _attempt(self, waiting: list[QueuedRequest]) -> tuple[ResidentState, Head]:
        began = time.monotonic()
        requests = [queued.request for queued in waiting]
        try:
            connection = await self._writer.get()
            async with asyncio.timeout(APPEND_SECONDS_MAX):
                now = self._clock() if self._clock else None
                appended = await append_group(connection, requests, self.prices, now)
        except BaseException as error:
            # Its locks are released when it is closed.
            await self._writer.close(error)
            raise
        self._answer(JudgedGroup(waiting, appended.verdicts, appended.group, began))
        return appended.state, appended.group.after

    def fail(self, waiting: Sequence[QueuedRequest], error: Exception) -> None:
        """Answer requests with an error."""
        logger.log(log_level(error), "%d requests failed: %s", len(waiting), type(error).__name__)
        self._queue.charge(waiting, 0.0)
        if isinstance(error, DISK_ERRORS):
            self._failed_at, self._reason = time.monotonic(), outage_reason(error)
        for queued in waiting:
            if queued.answer.done():
                continue
            if isinstance(error, UNAVAILABLE_ERRORS):
                queued.answer.set_exception(
                    DatabaseUnavailable(
                        "the database did not answer; retry with the same ids: each event is recorded at most once"
                    )
                )
            else:
                queued.answer.set_exception(error)
