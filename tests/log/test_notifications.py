"""Notifications: no task misses one, other processes are notified, one that cannot LISTEN polls."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import URL

from ledger.database import Database
from ledger.log import notifications
from ledger.log.notifications import IDLE_SECONDS_MAX, QUIET_SECONDS_MAX, LogSignal, Notifier, notify_other_processes
from tests.log.helpers import connected, gathered, turns, until

pytestmark = pytest.mark.direct

LONG_SECONDS = 600
LISTENERS = """
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND query ~ 'pg_notify|LISTEN'
"""


async def test_a_notification_between_check_and_wait_is_not_missed() -> None:
    signal = LogSignal()
    seen = signal.generation
    signal.notify()

    await asyncio.wait_for(signal.wait(seen, LONG_SECONDS), 5)


async def test_all_waiting_tasks_wake_and_a_task_that_waits_again_waits_for_the_next_notification() -> None:
    signal = LogSignal()
    waiting = [asyncio.create_task(signal.wait(signal.generation, LONG_SECONDS)) for _ in range(3)]
    await turns()

    signal.notify()
    await asyncio.wait_for(gathered(waiting), 5)
    second = asyncio.create_task(signal.wait(signal.generation, LONG_SECONDS))
    await turns()
    is_waiting = not second.done()
    signal.notify()

    assert is_waiting
    await asyncio.wait_for(second, 5)


async def test_a_cancelled_wait_and_a_timeout_do_not_affect_the_others() -> None:
    signal = LogSignal()
    patient, cancelled, short = (
        asyncio.create_task(signal.wait(signal.generation, seconds)) for seconds in (LONG_SECONDS, LONG_SECONDS, 0.01)
    )
    await turns()
    cancelled.cancel()
    await gathered([cancelled, short])

    signal.notify()
    signal.notify()

    await asyncio.wait_for(patient, 5)


@asynccontextmanager
async def notifying(database: Database, signal: LogSignal) -> AsyncIterator[Notifier]:
    """Run a notifier within the context."""
    notifier = Notifier(database, signal)
    running = asyncio.create_task(notifier.run())
    try:
        yield notifier
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def listening(signal: LogSignal, expected: bool = True) -> None:
    """Wait until the signal's notifier listens, or has given up listening."""

    async def reached() -> bool:
        return signal.receives_notifications is expected

    await until(reached)


async def notified(signal: LogSignal, seen: int) -> None:
    """Wait until the generation of a signal exceeds `seen`."""
    await signal.wait(seen, 20)
    assert signal.generation > seen


@pytest.fixture
async def other_database(database_url: URL) -> AsyncIterator[Database]:
    """Return the database as another process would open it."""
    database = Database(database_url)
    yield database
    await database.close()


async def test_an_append_in_one_process_notifies_the_others(database: Database, other_database: Database) -> None:
    local, remote = LogSignal(), LogSignal()
    async with notifying(database, local) as notifier, notifying(other_database, remote):
        await gathered([listening(local), listening(remote)])
        # Each receives the notification that the other sends when it begins to listen.
        await asyncio.sleep(0.2)
        seen_local, seen_remote = local.generation, remote.generation

        notifier.publish(1)
        await notified(remote, seen_remote)
        await asyncio.sleep(0.2)

    assert local.generation == seen_local + 1, "a process ignores its own notifications"


async def test_many_appends_cause_few_notifications(database: Database, other_database: Database) -> None:
    local, remote = LogSignal(), LogSignal()
    async with notifying(database, local) as notifier, notifying(other_database, remote):
        await gathered([listening(local), listening(remote)])
        seen = remote.generation

        for position in range(500):
            notifier.publish(position)
            await asyncio.sleep(0)
        await notified(remote, seen)
        await asyncio.sleep(0.2)

    assert remote.generation - seen < 50


async def test_a_program_that_appends_and_exits_notifies_once(database: Database, other_database: Database) -> None:
    signal = LogSignal()
    async with notifying(database, signal):
        await listening(signal)
        seen = signal.generation

        await notify_other_processes(other_database)

        await notified(signal, seen)


async def test_a_lost_connection_is_reopened_and_notifies_since_events_may_have_been_missed(
    database: Database, database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "RECONNECT_SECONDS_MIN", 0.01)
    signal = LogSignal()
    async with notifying(database, signal), connected(database_url) as other:
        await listening(signal)
        for _ in range(3):
            seen = signal.generation
            cut = await other.fetch(f"SELECT pg_terminate_backend(pid) {LISTENERS}")
            await notified(signal, seen)
            assert len(cut) == 1

        seen = signal.generation
        await other.execute("NOTIFY ledger_log")
        await notified(signal, seen)


async def test_pauses_grow_if_the_connection_is_lost_in_silence_and_stay_short_if_it_is_unreachable(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    ends = ["silence", "silence", "silence", "notified", "unreachable", "unreachable", "unreachable", "silence"]

    class RecordingSignal(LogSignal):
        async def wait(self, seen: int, timeout_seconds: float) -> None:
            waits.append(timeout_seconds)
            if len(waits) == len(ends):
                raise EOFError

    async def listen(notifier: Notifier, connection: object) -> bool:
        end = ends[len(waits)]
        if end == "unreachable":
            raise ConnectionRefusedError
        notifier._generation_at_start = signal.generation
        if end == "notified":
            signal.notify()
        return True

    monkeypatch.setattr(notifications, "RECONNECT_SECONDS_MIN", 0.001)
    monkeypatch.setattr(notifications, "UNREACHABLE_SECONDS_MAX", 0.01)
    monkeypatch.setattr(notifications, "RECONNECT_SECONDS_MAX", 0.6)
    monkeypatch.setattr(Notifier, "_listen", listen)
    signal = RecordingSignal()

    with pytest.raises(EOFError):
        await Notifier(database, signal).run()

    after_the_minimum = [0, 0.007, 0.063, 0, 0.007, 0.009, 0.009, 0.599]
    assert waits == pytest.approx(after_the_minimum)


async def test_a_process_whose_connection_cannot_listen_polls_each_second_and_still_notifies_others(
    database: Database, other_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    polling, receiving = LogSignal(), LogSignal()
    async with notifying(other_database, receiving):
        await listening(receiving)
        # A transaction-mode pooler accepts LISTEN but delivers nothing.
        monkeypatch.setattr(notifications, "CHANNEL", "elsewhere")
        monkeypatch.setattr(notifications, "ECHO_SECONDS_MAX", 0.1)
        async with notifying(database, polling) as notifier:
            await asyncio.sleep(0.3)
            seen = receiving.generation
            notifier.publish(1)
            await notified(receiving, seen)

    assert (polling.receives_notifications, polling.idle_seconds_max) == (False, IDLE_SECONDS_MAX)
    assert (receiving.receives_notifications, receiving.idle_seconds_max) == (True, QUIET_SECONDS_MAX)


async def test_a_process_that_cannot_listen_after_reconnecting_polls_again(
    database: Database, database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "RECONNECT_SECONDS_MIN", 0.01)
    monkeypatch.setattr(notifications, "ECHO_SECONDS_MAX", 0.1)
    signal = LogSignal()
    async with notifying(database, signal), connected(database_url) as other:
        await listening(signal)
        monkeypatch.setattr(notifications, "CHANNEL", "elsewhere")
        await other.fetch(f"SELECT pg_terminate_backend(pid) {LISTENERS}")
        await listening(signal, False)

    assert signal.idle_seconds_max == IDLE_SECONDS_MAX
