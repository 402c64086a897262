"""Waking who waits: nobody misses a ring, other processes are told, and who cannot hear polls."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import URL

from ledger.database import Database
from ledger.log import notifications as bell_module
from ledger.log.notifications import IDLE_SECONDS_MAX, QUIET_SECONDS_MAX, LogSignal, Notifier, notify_other_processes
from tests.log.helpers import connected, gathered, turns, until

pytestmark = pytest.mark.direct

FOR_EVER = 600
LISTENERS = """
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND query ~ 'pg_notify|LISTEN'
"""


async def test_a_ring_between_looking_and_waiting_is_not_missed() -> None:
    signal = LogSignal()
    heard = signal.generation
    signal.notify()

    await asyncio.wait_for(signal.wait(heard, FOR_EVER), 5)


async def test_everybody_who_waits_is_woken_and_who_waits_again_waits_for_the_next_ring() -> None:
    signal = LogSignal()
    waiting = [asyncio.create_task(signal.wait(signal.generation, FOR_EVER)) for _ in range(3)]
    await turns()

    signal.notify()
    await asyncio.wait_for(gathered(waiting), 5)
    again = asyncio.create_task(signal.wait(signal.generation, FOR_EVER))
    await turns()
    rests = not again.done()
    signal.notify()

    assert rests
    await asyncio.wait_for(again, 5)


async def test_one_who_gives_up_does_not_disturb_the_others() -> None:
    signal = LogSignal()
    patient, impatient, short = (
        asyncio.create_task(signal.wait(signal.generation, seconds)) for seconds in (FOR_EVER, FOR_EVER, 0.01)
    )
    await turns()
    impatient.cancel()
    await gathered([impatient, short])

    signal.notify()
    signal.notify()

    await asyncio.wait_for(patient, 5)


@asynccontextmanager
async def heralded(database: Database, signal: LogSignal) -> AsyncIterator[Notifier]:
    """A notifier at work while inside."""
    notifier = Notifier(database, signal)
    running = asyncio.create_task(notifier.run())
    try:
        yield notifier
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def hears(signal: LogSignal, others: bool = True) -> None:
    """Wait until the bell's notifier listens, or has given it up."""

    async def so() -> bool:
        return signal.receives_notifications is others

    await until(so)


async def rings(signal: LogSignal, heard: int) -> None:
    """Wait for a ring later than the `heard`-th."""
    await signal.wait(heard, 20)
    assert signal.generation > heard


@pytest.fixture
async def other_engine(database_url: URL) -> AsyncIterator[Database]:
    """As another process would have it."""
    database = Database(database_url)
    yield database
    await database.close()


async def test_an_append_in_one_process_rings_in_the_others(database: Database, other_engine: Database) -> None:
    here, there = LogSignal(), LogSignal()
    async with heralded(database, here) as notifier, heralded(other_engine, there):
        await gathered([hears(here), hears(there)])
        # Each is told that the other has begun to listen.
        await asyncio.sleep(0.2)
        rung_here, rung_there = here.generation, there.generation

        notifier.announce(1)
        await rings(there, rung_there)
        await asyncio.sleep(0.2)

    assert here.generation == rung_here + 1, "what comes back from ourselves is no news"


async def test_many_appends_are_told_in_few_words(database: Database, other_engine: Database) -> None:
    here, there = LogSignal(), LogSignal()
    async with heralded(database, here) as notifier, heralded(other_engine, there):
        await gathered([hears(here), hears(there)])
        rung = there.generation

        for position in range(500):
            notifier.announce(position)
            await asyncio.sleep(0)
        await rings(there, rung)
        await asyncio.sleep(0.2)

    assert there.generation - rung < 50


async def test_a_program_that_appends_and_ends_rings_once(database: Database, other_engine: Database) -> None:
    signal = LogSignal()
    async with heralded(database, signal):
        await hears(signal)
        rung = signal.generation

        await notify_other_processes(other_engine)

        await rings(signal, rung)


async def test_a_cut_connection_is_made_again_and_rings_since_something_may_have_come(
    database: Database, database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bell_module, "RECONNECT_SECONDS_MIN", 0.01)
    signal = LogSignal()
    async with heralded(database, signal), connected(database_url) as other:
        await hears(signal)
        for _ in range(3):
            rung = signal.generation
            cut = await other.fetch(f"SELECT pg_terminate_backend(pid) {LISTENERS}")
            await rings(signal, rung)
            assert len(cut) == 1

        rung = signal.generation
        await other.execute("NOTIFY ledger_log")
        await rings(signal, rung)


async def test_lost_while_nothing_happens_it_waits_longer_each_time_but_not_when_it_cannot_be_reached(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    ends = ["silence", "silence", "silence", "news", "unreachable", "unreachable", "unreachable", "silence"]

    class Patient(LogSignal):
        async def wait(self, heard: int, seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == len(ends):
                raise EOFError

    async def attend(notifier: Notifier, connection: object) -> bool:
        end = ends[len(waits)]
        if end == "unreachable":
            raise ConnectionRefusedError
        notifier._rung_at_start = signal.generation
        if end == "news":
            signal.notify()
        return True

    monkeypatch.setattr(bell_module, "RECONNECT_SECONDS_MIN", 0.001)
    monkeypatch.setattr(bell_module, "UNREACHABLE_SECONDS_MAX", 0.01)
    monkeypatch.setattr(bell_module, "RECONNECT_SECONDS_MAX", 0.6)
    monkeypatch.setattr(Notifier, "_attend", attend)
    signal = Patient()

    with pytest.raises(EOFError):
        await Notifier(database, signal).run()

    after_the_least = [0, 0.007, 0.063, 0, 0.007, 0.009, 0.009, 0.599]
    assert waits == pytest.approx(after_the_least)


async def test_a_connection_that_cannot_hear_means_polling_each_second_and_still_tells_others(
    database: Database, other_engine: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf, hearing = LogSignal(), LogSignal()
    async with heralded(other_engine, hearing):
        await hears(hearing)
        # A pooler in transaction mode takes LISTEN and delivers nothing.
        monkeypatch.setattr(bell_module, "CHANNEL", "elsewhere")
        monkeypatch.setattr(bell_module, "ECHO_SECONDS_MAX", 0.1)
        async with heralded(database, deaf) as notifier:
            await asyncio.sleep(0.3)
            rung = hearing.generation
            notifier.announce(1)
            await rings(hearing, rung)

    assert (deaf.receives_notifications, deaf.idle_seconds_max) == (False, IDLE_SECONDS_MAX)
    assert (hearing.receives_notifications, hearing.idle_seconds_max) == (True, QUIET_SECONDS_MAX)


async def test_one_who_heard_once_and_is_deaf_after_reconnecting_polls_again(
    database: Database, database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bell_module, "RECONNECT_SECONDS_MIN", 0.01)
    monkeypatch.setattr(bell_module, "ECHO_SECONDS_MAX", 0.1)
    signal = LogSignal()
    async with heralded(database, signal), connected(database_url) as other:
        await hears(signal)
        monkeypatch.setattr(bell_module, "CHANNEL", "elsewhere")
        await other.fetch(f"SELECT pg_terminate_backend(pid) {LISTENERS}")
        await hears(signal, False)

    assert signal.idle_seconds_max == IDLE_SECONDS_MAX
