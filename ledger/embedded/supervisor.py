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
"""A server that has run for this time is started again without a pause when it ends."""

HOPELESS_SECONDS = 60.0
"""After this time without success the process counts as unhealthy, so that what supervises it can start it anew."""


class Supervisor:
    """Keeps the server of this process running. Run `run` as a task."""

    def __init__(self, server: EmbeddedServer, outage: Outage) -> None:
        """Make a supervisor; `outage` belongs to the connection pools of the server."""
        self._server = server
        self._outage = outage
        self._backoff = Backoff(RESTART_SECONDS_MIN, RESTART_SECONDS_MAX)
        self._started_at = time.monotonic()
        self._ended_at: float | None = None
        self._reason = ""

    def problem(self) -> str | None:
        """Return why the server has not been running for long; None if it runs, or may soon."""
        if self._ended_at is None or time.monotonic() - self._ended_at < HOPELESS_SECONDS:
            return None
        return f"the embedded PostgreSQL has ended and does not start: {self._reason}"

    async def run(self) -> None:
        """Check the server, and start it again whenever it has ended, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                if not self._server.is_running():
                    await self._restart()
            except (OSError, ValueError):
                # Such as too many open files: it may pass.
                logger.exception("checking the embedded PostgreSQL failed; retrying")
                await asyncio.sleep(self._backoff.next())

    async def _restart(self) -> None:
        self._ended_at = time.monotonic()
        self._outage.begin()
        logger.error("the embedded PostgreSQL (process %d) has ended; it is started again", self._server.pid)
        if self._ended_at - self._started_at < STABLE_SECONDS:
            await asyncio.sleep(self._backoff.next())
        else:
            self._backoff.reset()
        await self._start()
        self._outage.works()
        self._started_at = time.monotonic()
        self._ended_at = None
        self._reason = ""

    async def _start(self) -> None:
        """Try to start the server until it runs; log only the first reason why it does not."""
        while True:
            try:
                await asyncio.to_thread(self._server.restart)
                return
            except EmbeddedError as error:
                if not self._reason:
                    logger.error("the embedded PostgreSQL does not start; retrying: %s", error)
                self._reason = str(error)
            await asyncio.sleep(self._backoff.next())
