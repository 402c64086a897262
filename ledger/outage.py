"""Outage log: one line when the database becomes unavailable, and one when it is available again."""

import asyncio
import logging
import time

logger = logging.getLogger(__name__)

QUIET_SECONDS = 2.0
"""An outage is over once the database has worked for this time without a failure: a full disk fails only some uses."""


class Outage:
    """The outages of a database server in this process. All pools of one server share it, so that each is logged once.

    Call its methods in the event loop.
    """

    def __init__(self, *, is_logged: bool = True) -> None:
        """Start without an outage; `is_logged`: whether its outages are logged here."""
        self._level = logging.WARNING if is_logged else logging.NOTSET
        self._began_at: float | None = None
        self._back_at = 0.0
        self._end: asyncio.TimerHandle | None = None

    def record_failure(self, reason: str) -> None:
        """Record a failure; log the first one of an outage."""
        if self._began_at is None:
            self._log("the database is unavailable: %s; what needs it is refused or retried until it is back", reason)
        self.record_logged_failure()

    def record_logged_failure(self) -> None:
        """Record a failure whose cause the caller has logged."""
        if self._began_at is None:
            self._began_at = time.monotonic()
        if self._end is not None:
            self._end.cancel()
            self._end = None

    def record_success(self) -> None:
        """Record that the database works; log the end of an outage once it has worked for `QUIET_SECONDS`."""
        if self._began_at is not None and self._end is None:
            self._back_at = time.monotonic()
            self._end = asyncio.get_running_loop().call_later(QUIET_SECONDS, self._over)

    def _over(self) -> None:
        assert self._began_at is not None
        self._log("the database is available again; the outage lasted %.1f s", self._back_at - self._began_at)
        self._began_at = self._end = None

    def _log(self, message: str, value: object) -> None:
        if self._level:
            logger.log(self._level, message, value)
