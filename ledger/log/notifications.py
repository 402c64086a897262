"""New-event notifications: wake waiting tasks in this process, other processes by LISTEN/NOTIFY.

NOTIFY is sent after the append has committed, at most every 20 ms: inside the append transaction it would take a lock
that all committing sessions share. A notification may be lost if a process is killed in between, so every waiting
task also polls from time to time.
"""

import asyncio
import logging
import os
from contextlib import suppress
from typing import Any

from ledger.backoff import Backoff
from ledger.database import Connection, Database, log_level

logger = logging.getLogger(__name__)

CHANNEL = "ledger_log"
NOTIFY = "SELECT pg_notify('ledger_log', $1)"

NOTIFY_INTERVAL_SECONDS = 0.02
"""The shortest time between two notifications to other processes."""

ECHO_SECONDS_MAX = 2.0
"""A connection that does not receive its own notification within this time cannot LISTEN."""

RECONNECT_SECONDS_MIN = 1.0
RECONNECT_SECONDS_MAX = 600.0
UNREACHABLE_SECONDS_MAX = 10.0
"""The longest pause between attempts to reach a database that cannot be reached."""

IDLE_SECONDS_MAX = 1.0
"""Poll interval of waiting tasks in a process that receives no notifications from other processes."""

QUIET_SECONDS_MAX = 600.0
"""Longest poll interval in a process that receives them: a serverless database may suspend in the meantime."""


class LogSignal:
    """Signals that the log has grown. `generation` counts notifications, so none is missed between check and wait."""

    def __init__(self) -> None:
        self.generation = 0
        self.receives_notifications = False
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def idle_seconds_max(self) -> float:
        """The longest time to wait before polling."""
        return QUIET_SECONDS_MAX if self.receives_notifications else IDLE_SECONDS_MAX

    def notify(self) -> None:
        """Wake every waiting task."""
        self.generation += 1
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)
        self._waiting.clear()

    async def notify_in_batches(self, size: int) -> None:
        """Wake every waiting task, `size` at a time; with thousands of them, other tasks run between the batches."""
        self.generation += 1
        for count, waiting in enumerate(list(self._waiting), 1):
            if not waiting.done():
                waiting.set_result(None)
            if count % size == 0:
                await asyncio.sleep(0)

    async def wait(self, seen: int, timeout_seconds: float) -> None:
        """Wait until `generation` exceeds `seen`, at most `timeout_seconds`."""
        if self.generation > seen:
            return
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_seconds):
                    await waiting
        finally:
            self._waiting.discard(waiting)


class Notifier:
    """Carries notifications between processes over one listening connection. Run `run` as a task."""

    def __init__(self, database: Database, signal: LogSignal, direct: Database | None = None) -> None:
        """Make a notifier.

        Args:
            database: the database of the log.
            signal: notified when another process appends.
            direct: the same database without a transaction-mode pooler in between, behind which LISTEN receives
                nothing; `database` when None.
        """
        self._database = database
        self._direct = direct or database
        self._signal = signal
        # The payload of this process's notifications, which it ignores when it receives them itself.
        self._sender = os.urandom(8).hex()
        self._must_notify = asyncio.Event()
        self._generation_at_start: int | None = None

    def publish(self, position: int) -> None:
        """Notify this process and the others that the log has grown; called after each append."""
        self._signal.notify()
        self._must_notify.set()

    async def run(self) -> None:
        """Listen and notify until cancelled. If the connection cannot LISTEN, only notify: this process then polls."""
        backoff = Backoff(RECONNECT_SECONDS_MIN, RECONNECT_SECONDS_MAX, factor=8)
        while True:
            self._generation_at_start = None
            try:
                async with self._direct.connection() as connection:
                    if not await self._listen(connection):
                        break
            except Exception as error:  # noqa: BLE001 (nothing is lost: waiting tasks also poll)
                kind = type(error).__name__
                logger.log(log_level(error), "the listening connection failed (%s); it will be reopened", kind)
            pause = self._reconnect_seconds(backoff)
            await asyncio.sleep(RECONNECT_SECONDS_MIN)
            await self._signal.wait(self._signal.generation, pause - RECONNECT_SECONDS_MIN)
        self._signal.receives_notifications = False
        logger.info("this connection cannot LISTEN: waiting tasks poll every %.0f s", IDLE_SECONDS_MAX)
        await self._notify_without_listening()

    def _reconnect_seconds(self, backoff: Backoff) -> float:
        if self._generation_at_start is None:
            return min(backoff.next(), UNREACHABLE_SECONDS_MAX)
        # A connection that is lost repeatedly without any notification may belong to a serverless database that
        # suspends: the pauses grow, so that it can.
        if self._signal.generation > self._generation_at_start:
            backoff.reset()
        return backoff.next()

    async def _notify_without_listening(self) -> None:
        """Notify other processes, which may be able to LISTEN, over connections borrowed for each notification."""
        while True:
            await self._must_notify.wait()
            self._must_notify.clear()
            try:
                await notify_other_processes(self._database)
            except Exception as error:  # noqa: BLE001 (nothing is lost: waiting tasks also poll)
                logger.log(log_level(error), "other processes could not be notified: %s", type(error).__name__)
            await asyncio.sleep(NOTIFY_INTERVAL_SECONDS)

    async def _listen(self, connection: Connection) -> bool:
        """Listen and notify while the connection lasts; return False if it receives no notifications."""
        echo = asyncio.Event()
        lost = asyncio.Event()

        def on_notification(_: Any, pid: int, channel: str, payload: object) -> None:
            if payload == self._sender:
                echo.set()
            else:
                self._signal.notify()

        def on_termination(_: Any) -> None:
            lost.set()
            self._must_notify.set()

        if self._direct.is_pooled:
            # LISTEN would remain on the server connection, for the next client that the pooler assigns it to.
            return False
        connection.add_termination_listener(on_termination)
        await connection.add_listener(CHANNEL, on_notification)
        try:
            # Other kinds of poolers are not detected: only a notification that arrives proves that LISTEN works.
            await connection.execute(NOTIFY, self._sender)
            with suppress(TimeoutError):
                async with asyncio.timeout(ECHO_SECONDS_MAX):
                    await echo.wait()
            if not echo.is_set():
                return lost.is_set()
            self._signal.receives_notifications = True
            # Events may have been appended before LISTEN took effect.
            self._signal.notify()
            self._generation_at_start = self._signal.generation
            await self._notify_until_lost(connection, lost)
            return True
        finally:
            if not connection.is_closed():
                await connection.remove_listener(CHANNEL, on_notification)
                connection.remove_termination_listener(on_termination)

    async def _notify_until_lost(self, connection: Connection, lost: asyncio.Event) -> None:
        while not lost.is_set():
            await self._must_notify.wait()
            self._must_notify.clear()
            if not lost.is_set():
                await connection.execute(NOTIFY, self._sender)
                await asyncio.sleep(NOTIFY_INTERVAL_SECONDS)


async def notify_other_processes(database: Database) -> None:
    """Notify all other processes once; for programs that append and exit."""
    async with database.connection() as connection:
        await connection.execute(NOTIFY, "")
