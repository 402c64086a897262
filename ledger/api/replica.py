"""Reading from a streaming replica: the one place that chooses between it and the primary.

A replica is a little behind, and may be away. So nothing but its success is believed: what it cannot answer, for
whatever reason, the primary is asked. `Ledger-Position` comes out of the same statement as the answer, wherever that
was read.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aiohttp import web

from ledger.database import Database
from ledger.domain.errors import LedgerError, ProjectionBehind
from ledger.log.read import read_head

if TYPE_CHECKING:
    from ledger.api.services import Services

logger = logging.getLogger(__name__)

ASK_SECONDS = 1.0
"""At most so often, and only when it is to be read, the replica is asked whether it is there."""

ANSWER_SECONDS_MAX = 2.0
AWAY_SECONDS = 5.0
"""A replica that did not answer is left alone for so long."""

WAIT_SECONDS_MAX = 1.0
"""So long the replica may take to reach a position that is waited for; then the primary is asked."""

POLL_SECONDS = 0.01


class Replica:
    """A streaming replica, which is used while it answers."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._is_there = True
        self._ask_at = 0.0

    async def answer(
        self,
        handler: "Callable[[web.Request, Services], Awaitable[web.StreamResponse]]",
        request: web.Request,
        services: "Services",
    ) -> web.StreamResponse:
        """Have a handler answer from the replica, and where that fails from the primary."""
        started = time.monotonic()
        if await self._answers():
            on_replica = services._replace(reads=self.database, wait_seconds_max=WAIT_SECONDS_MAX)
            try:
                return await handler(request, on_replica)
            except LedgerError:
                # It may be wrong only because the replica is behind.
                pass
            except Exception as error:
                if request.transport is None or request.transport.is_closing():
                    raise
                self._note(error)
        left = max(0.0, services.wait_seconds_max - (time.monotonic() - started))
        return await handler(request, services._replace(wait_seconds_max=left))

    async def _answers(self) -> bool:
        if time.monotonic() >= self._ask_at:
            # Set first: who comes meanwhile goes by the last answer instead of waiting too.
            self._ask_at = time.monotonic() + ASK_SECONDS + ANSWER_SECONDS_MAX
            try:
                async with asyncio.timeout(ANSWER_SECONDS_MAX), self.database.connection() as connection:
                    await connection.execute("SELECT")
                self._note(None)
            except Exception as error:  # noqa: BLE001 (whatever it is, the primary is there)
                self._note(error)
        return self._is_there

    def _note(self, error: Exception | None) -> None:
        """Remember how it went; log the beginning and the end of an outage, not every request."""
        if error is not None and self._is_there:
            logger.warning("the replica does not answer (%s): the primary is read instead", type(error).__name__)
        elif error is None and not self._is_there:
            logger.warning("the replica answers again")
        self._is_there = error is None
        self._ask_at = time.monotonic() + (ASK_SECONDS if error is None else AWAY_SECONDS)


async def wait_for_log(database: Database, position: int, seconds: float) -> None:
    """Wait until a replica's log reaches a position.

    Raises:
        ProjectionBehind: it does not within so many seconds.
    """
    deadline = time.monotonic() + seconds
    while True:
        async with database.connection() as connection:
            head = await read_head(connection)
        if head >= position:
            return
        if time.monotonic() >= deadline:
            raise ProjectionBehind(f"the replica is at position {head}, not at {position} yet")
        await asyncio.sleep(POLL_SECONDS)
