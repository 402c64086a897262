"""The signal: who waits for new events is woken, in this process by a call, in other processes by NOTIFY.

NOTIFY is sent after the append has committed, and at most every 20 ms: inside the append transaction it would take a
lock that all committing senders share. A notification may be lost (a process killed in between): whoever waits
also looks for himself from time to time.
"""

import asyncio
import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ledger.backoff import Backoff
from ledger.database import Connection, Database

if TYPE_CHECKING:
    pass

logger = logging.getLogger(__name__)

CHANNEL = "ledger_log"
NOTIFY = "SELECT pg_notify('ledger_log', $1)"

TELL_SECONDS = 0.02
"""Other processes are told at most this often."""

ECHO_SECONDS_MAX = 2.0
RECONNECT_SECONDS_MIN = 1.0
RECONNECT_SECONDS_MAX = 600.0
UNREACHABLE_SECONDS_MAX = 10.0
"""A database that cannot be reached is tried again at least this often."""

IDLE_SECONDS_MAX = 1.0
"""Who waits looks for himself after this long where other processes cannot ring here ..."""

QUIET_SECONDS_MAX = 600.0
"""... and up to this long where they can: a serverless database may sleep meanwhile."""


class LogSignal:
    """Rings when the log has grown. `generation` counts, so that nobody misses a ring between looking and waiting."""

    def __init__(self) -> None:
        self.generation = 0
        self.receives_notifications = False
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def idle_seconds_max(self) -> float:
        """How long one may wait without looking."""
        return QUIET_SECONDS_MAX if self.receives_notifications else IDLE_SECONDS_MAX

    def notify(self) -> None:
        """Wake everybody who waits."""
        self.generation += 1
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)
        self._waiting.clear()

    async def notify_in_batches(self, count: int) -> None:
        """Wake everybody who waits, so many at a time: where there are thousands, others have their turn between."""
        self.generation += 1
        for at, waiting in enumerate(list(self._waiting), 1):
            if not waiting.done():
                waiting.set_result(None)
            if at % count == 0:
                await asyncio.sleep(0)

    async def wait(self, seen: int, seconds: float) -> None:
        """Wait for a ring later than the `seen`-th, at most so long."""
        if self.generation > seen:
            return
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await waiting
        finally:
            self._waiting.discard(waiting)


class Notifier:
    """Carries rings between processes over one connection that listens. Run it as a task beside the bell's users."""

    def __init__(self, database: Database, signal: LogSignal, direct: Database | None = None) -> None:
        """Make a notifier.

        Args:
            database: the way to the database.
            direct: the way beside a transaction pooler, behind which nothing is ever heard.
        """
        self._database = database
        self._direct = direct or database
        self._signal = signal
        # What comes back from ourselves is no news.
        self._name = os.urandom(8).hex()
        self._news = asyncio.Event()
        self._rung_at_start: int | None = None

    def announce(self, position: int) -> None:
        """Say that the log has grown, here and elsewhere; called after each append."""
        self._signal.notify()
        self._news.set()

    async def run(self) -> None:
        """Listen and tell until cancelled. Where the connection cannot listen, only tell: then all here must poll."""
        backoff = Backoff(RECONNECT_SECONDS_MIN, RECONNECT_SECONDS_MAX, factor=8)
        while True:
            self._rung_at_start = None
            try:
                async with self._direct.connection() as connection:
                    if not await self._attend(connection):
                        break
            except Exception as error:  # noqa: BLE001 (nothing is lost: whoever waits looks for himself)
                logger.warning("the connection that listens failed: %s", type(error).__name__)
            if self._rung_at_start is None:
                wait = min(backoff.next(), UNREACHABLE_SECONDS_MAX)
            else:
                # Lost again and again in silence: it may be a database that goes to sleep. Let it sleep.
                if self._signal.generation > self._rung_at_start:
                    backoff.reset()
                wait = backoff.next()
            await asyncio.sleep(RECONNECT_SECONDS_MIN)
            await self._signal.wait(self._signal.generation, wait - RECONNECT_SECONDS_MIN)
        self._signal.receives_notifications = False
        logger.info("no LISTEN on this connection: waiting processes look for new events each second")
        await self._only_tell()

    async def _only_tell(self) -> None:
        """Tell others, who may be able to listen, over connections that are borrowed for it."""
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await notify_other_processes(self._database)
            except Exception as error:  # noqa: BLE001 (whoever waits looks for himself)
                logger.warning("other processes could not be told of new events: %s", type(error).__name__)
            await asyncio.sleep(TELL_SECONDS)

    async def _attend(self, connection: Connection) -> bool:
        """Listen and tell while the connection lasts; False where it turns out to be deaf."""
        echo = asyncio.Event()
        lost = asyncio.Event()

        def hear(_: Any, pid: int, channel: str, payload: object) -> None:
            if payload == self._name:
                echo.set()
            else:
                self._signal.notify()

        def lose(_: Any) -> None:
            lost.set()
            self._news.set()

        if self._direct.is_pooled:
            # LISTEN would stay behind on the server's connection, for whoever gets that next.
            return False
        connection.add_termination_listener(lose)
        await connection.add_listener(CHANNEL, hear)
        try:
            # There are more kinds of poolers than are known here: believe only what is heard.
            await connection.execute(NOTIFY, self._name)
            with suppress(TimeoutError):
                async with asyncio.timeout(ECHO_SECONDS_MAX):
                    await echo.wait()
            if not echo.is_set():
                return lost.is_set()
            self._signal.receives_notifications = True
            # Something may have come while nobody listened.
            self._signal.notify()
            self._rung_at_start = self._signal.generation
            while not lost.is_set():
                await self._news.wait()
                self._news.clear()
                if not lost.is_set():
                    await connection.execute(NOTIFY, self._name)
                    await asyncio.sleep(TELL_SECONDS)
            return True
        finally:
            if not connection.is_closed():
                await connection.remove_listener(CHANNEL, hear)
                connection.remove_termination_listener(lose)


async def notify_other_processes(database: Database) -> None:
    """Ring in all other processes, once; for programs that append and end."""
    async with database.connection() as connection:
        await connection.execute(NOTIFY, "")
