"""Waking who waits: nobody misses a ring, other processes are told, and who cannot hear polls."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.database import make_engine
from ledger.log import bell as bell_module
from ledger.log.bell import IDLE_SECONDS_MAX, QUIET_SECONDS_MAX, Bell, Herald, tell_others
from tests.log.helpers import connected, gathered, turns, until

FOR_EVER = 600
LISTENERS = """
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND query ~ 'pg_notify|LISTEN'
"""


async def test_a_ring_between_looking_and_waiting_is_not_missed() -> None:
    bell = Bell()
    heard = bell.rung
    bell.ring()

    await asyncio.wait_for(bell.wait(heard, FOR_EVER), 5)


async def test_everybody_who_waits_is_woken_and_who_waits_again_waits_for_the_next_ring() -> None:
    bell = Bell()
    waiting = [asyncio.create_task(bell.wait(bell.rung, FOR_EVER)) for _ in range(3)]
    await turns()

    bell.ring()
    await asyncio.wait_for(gathered(waiting), 5)
    again = asyncio.create_task(bell.wait(bell.rung, FOR_EVER))
    await turns()
    rests = not again.done()
    bell.ring()

    assert rests
    await asyncio.wait_for(again, 5)


async def test_one_who_gives_up_does_not_disturb_the_others() -> None:
    bell = Bell()
    patient, impatient, short = (
        asyncio.create_task(bell.wait(bell.rung, seconds)) for seconds in (FOR_EVER, FOR_EVER, 0.01)
    )
    await turns()
    impatient.cancel()
    await gathered([impatient, short])

    bell.ring()
    bell.ring()

    await asyncio.wait_for(patient, 5)


@asynccontextmanager
async def heralded(engine: AsyncEngine, bell: Bell) -> AsyncIterator[Herald]:
    """A herald at work while inside."""
    herald = Herald(engine, bell)
    running = asyncio.create_task(herald.run())
    try:
        yield herald
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def hears(bell: Bell, others: bool = True) -> None:
    """Wait until the bell's herald listens, or has given it up."""

    async def so() -> bool:
        return bell.hears_others is others

    await until(so)


async def rings(bell: Bell, heard: int) -> None:
    """Wait for a ring later than the `heard`-th."""
    await bell.wait(heard, 20)
    assert bell.rung > heard


@pytest.fixture
async def other_engine(database_url: URL) -> AsyncIterator[AsyncEngine]:
    """As another process would have it."""
    engine = make_engine(database_url)
    yield engine
    await engine.dispose()


async def test_an_append_in_one_process_rings_in_the_others(engine: AsyncEngine, other_engine: AsyncEngine) -> None:
    here, there = Bell(), Bell()
    async with heralded(engine, here) as herald, heralded(other_engine, there):
        await gathered([hears(here), hears(there)])
        # Each is told that the other has begun to listen.
        await asyncio.sleep(0.2)
        rung_here, rung_there = here.rung, there.rung

        herald.announce(1)
        await rings(there, rung_there)
        await asyncio.sleep(0.2)

    assert here.rung == rung_here + 1, "what comes back from ourselves is no news"


async def test_many_appends_are_told_in_few_words(engine: AsyncEngine, other_engine: AsyncEngine) -> None:
    here, there = Bell(), Bell()
    async with heralded(engine, here) as herald, heralded(other_engine, there):
        await gathered([hears(here), hears(there)])
        rung = there.rung

        for position in range(500):
            herald.announce(position)
            await asyncio.sleep(0)
        await rings(there, rung)
        await asyncio.sleep(0.2)

    assert there.rung - rung < 50


async def test_a_program_that_appends_and_ends_rings_once(engine: AsyncEngine, other_engine: AsyncEngine) -> None:
    bell = Bell()
    async with heralded(engine, bell):
        await hears(bell)
        rung = bell.rung

        await tell_others(other_engine)

        await rings(bell, rung)


async def test_a_cut_connection_is_made_again_and_rings_since_something_may_have_come(
    engine: AsyncEngine, database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bell_module, "RECONNECT_SECONDS_MIN", 0.01)
    bell = Bell()
    async with heralded(engine, bell), connected(database_url) as other:
        await hears(bell)
        for _ in range(3):
            rung = bell.rung
            cut = await other.fetch(f"SELECT pg_terminate_backend(pid) {LISTENERS}")
            await rings(bell, rung)
            assert len(cut) == 1

        rung = bell.rung
        await other.execute("NOTIFY ledger_log")
        await rings(bell, rung)


async def test_lost_while_nothing_happens_it_waits_longer_each_time_but_not_when_it_cannot_be_reached(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    ends = ["silence", "silence", "silence", "news", "unreachable", "unreachable", "unreachable", "silence"]

    class Patient(Bell):
        async def wait(self, heard: int, seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == len(ends):
                raise EOFError

    async def attend(herald: Herald, connection: object) -> bool:
        end = ends[len(waits)]
        if end == "unreachable":
            raise ConnectionRefusedError
        herald._rung_at_start = bell.rung
        if end == "news":
            bell.ring()
        return True

    monkeypatch.setattr(bell_module, "RECONNECT_SECONDS_MIN", 0.001)
    monkeypatch.setattr(bell_module, "UNREACHABLE_SECONDS_MAX", 0.01)
    monkeypatch.setattr(bell_module, "RECONNECT_SECONDS_MAX", 0.6)
    monkeypatch.setattr(Herald, "_attend", attend)
    bell = Patient()

    with pytest.raises(EOFError):
        await Herald(engine, bell).run()

    after_the_least = [0, 0.007, 0.063, 0, 0.007, 0.009, 0.009, 0.599]
    assert waits == pytest.approx(after_the_least)


async def test_a_connection_that_cannot_hear_means_polling_each_second_and_still_tells_others(
    engine: AsyncEngine, other_engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf, hearing = Bell(), Bell()
    async with heralded(other_engine, hearing):
        await hears(hearing)
        # A pooler in transaction mode takes LISTEN and delivers nothing.
        monkeypatch.setattr(bell_module, "CHANNEL", "elsewhere")
        monkeypatch.setattr(bell_module, "ECHO_SECONDS_MAX", 0.1)
        async with heralded(engine, deaf) as herald:
            await asyncio.sleep(0.3)
            rung = hearing.rung
            herald.announce(1)
            await rings(hearing, rung)

    assert (deaf.hears_others, deaf.idle_seconds_max) == (False, IDLE_SECONDS_MAX)
    assert (hearing.hears_others, hearing.idle_seconds_max) == (True, QUIET_SECONDS_MAX)


async def test_one_who_heard_once_and_is_deaf_after_reconnecting_polls_again(
    engine: AsyncEngine, database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bell_module, "RECONNECT_SECONDS_MIN", 0.01)
    monkeypatch.setattr(bell_module, "ECHO_SECONDS_MAX", 0.1)
    bell = Bell()
    async with heralded(engine, bell), connected(database_url) as other:
        await hears(bell)
        monkeypatch.setattr(bell_module, "CHANNEL", "elsewhere")
        await other.fetch(f"SELECT pg_terminate_backend(pid) {LISTENERS}")
        await hears(bell, False)

    assert bell.idle_seconds_max == IDLE_SECONDS_MAX
