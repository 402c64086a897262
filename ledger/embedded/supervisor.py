"""Supervisor of the embedded PostgreSQL: when the server has ended, start it again, with back-off."""

import asyncio
import logging
import time

from ledger.backoff import Backoff
from ledger.embedded.errors import EmbeddedError
from ledger.embedded.server import EmbeddedServer
from ledger.outage import Outage

logger = logging.getLogger(__name__)

CHECK_SECONDS = 0.25
"""How often the supervisor checks that the server runs."""

RESTART_SECONDS_MIN = 0.25
RESTART_SECONDS_MAX = 10.0
"""The pauses before another start of a server that does not start, or that ends again soon."""

STABLE_SECONDS = 5.0
"""A restarted server counts as up again after this time; one that ends sooner is in a crash loop."""

GIVE_UP_SECONDS = 60.0
"""The supervisor gives up if the server has not restarted within this time."""


class Supervisor:
    """Keeps the server of this process running. Run `run` as a task."""

    def __init__(self, server: EmbeddedServer, outage: Outage) -> None:
        """Make a supervisor; `outage` belongs to the connection pools of the server."""
        self._server = server
        self._outage = outage
        self._backoff = Backoff(RESTART_SECONDS_MIN, RESTART_SECONDS_MAX)
        self._is_down = False
        self._started_at = 0.0
        self._ended_at: float | None = None
        self._reason = ""

    async def run(self) -> None:
        """Check the server, and start it again whenever it has ended, until cancelled.

        Raises:
            EmbeddedError: it did not restart within `GIVE_UP_SECONDS`.
        """
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                is_running = self._server.is_running()
                if is_running and not self._is_down:
                    self._record_running()
                elif is_running or not self._should_give_up():
                    await self._restart()
                else:
                    break
            except (EmbeddedError, OSError, ValueError) as error:
                # An OSError, such as too many open files, may pass too.
                self._record_failure(error)
                await asyncio.sleep(self._backoff.next())
        reason = self._reason or "it ends soon after each start"
        raise EmbeddedError(f"PostgreSQL ended and did not restart within {GIVE_UP_SECONDS:.0f} s: {reason}")

    def _record_running(self) -> None:
        if self._ended_at is None or time.monotonic() - self._started_at >= STABLE_SECONDS:
            self._ended_at, self._reason = None, ""
            self._backoff.reset()

    def _should_give_up(self) -> bool:
        return self._ended_at is not None and time.monotonic() - self._ended_at >= GIVE_UP_SECONDS

    def _record_failure(self, error: Exception) -> None:
        """Log only the first reason, until the server is up again."""
        if not self._reason:
            logger.error("starting or checking the embedded PostgreSQL failed; retrying: %s", error)
        self._reason = str(error)

    async def _restart(self) -> None:
        if not self._is_down:
            await self._record_end()
        await asyncio.to_thread(self._server.restart)
        self._is_down = False
        self._started_at = time.monotonic()
        self._outage.record_success()

    async def _record_end(self) -> None:
        """Log that the server has ended; pause if it was not up for long."""
        self._is_down = True
        self._outage.record_logged_failure()
        logger.error("the embedded PostgreSQL (process %d) has ended; restarting it", self._server.pid)
        if self._ended_at is None:
            self._ended_at = time.monotonic()
        else:
            await asyncio.sleep(self._backoff.next())
