"""The kinds of faults. Each strikes the machine in the middle of its work; what was killed is started again after."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

import asyncpg
import psutil

from ledger.faults.load import Load
from ledger.faults.machine import Machine, kill_all

FULL_SECONDS_MAX = 6.0
REFUSALS_WHILE_FULL = 5


class Blow(NamedTuple):
    """Who is struck, and by which chances."""

    machine: Machine
    load: Load
    chance: random.Random


async def kill_api(blow: Blow) -> None:
    """SIGKILL to one API process while the other serves, sometimes to both."""
    apis = blow.machine.apis
    for api in apis if blow.chance.random() < 0.2 else [blow.chance.choice(apis)]:
        await api.kill()
    await asyncio.sleep(blow.chance.uniform(0, 0.2))


async def kill_worker(blow: Blow) -> None:
    """SIGKILL to one worker, which also seals and expires, sometimes to both."""
    workers = blow.machine.workers
    for worker in workers if blow.chance.random() < 0.3 else [blow.chance.choice(workers)]:
        await worker.kill()
    await asyncio.sleep(blow.chance.uniform(0, 0.2))


async def kill_postgres(blow: Blow) -> None:
    """SIGKILL to PostgreSQL: to all of its processes at once, or to the first alone."""
    postmaster = blow.machine.postmaster()
    assert postmaster is not None
    both = blow.chance.random() < 0.5
    kill_all([postmaster, *(postmaster.children(recursive=True) if both else [])])
    await _postgres_stays_away(blow)


async def stop_postgres_immediately(blow: Blow) -> None:
    """PostgreSQL stopped as by `pg_ctl stop -m immediate`: it is given no time to write anything down."""
    postmaster = blow.machine.postmaster()
    assert postmaster is not None
    postmaster.send_signal(signal.SIGQUIT)
    await _postgres_stays_away(blow)


async def _postgres_stays_away(blow: Blow) -> None:
    await blow.machine.postgres_died()
    await asyncio.sleep(blow.chance.uniform(0, 0.3))


async def kill_backend(blow: Blow) -> None:
    """SIGKILL to one process that serves a connection: PostgreSQL throws away all of its memory and recovers."""
    postmaster = blow.machine.postmaster()
    assert postmaster is not None
    sessions = []
    for child in postmaster.children():
        with suppress(psutil.NoSuchProcess):
            if "127.0.0.1(" in " ".join(child.cmdline()):
                sessions.append(child)
    kill_all([blow.chance.choice(sessions)] if sessions else [])


async def terminate_sessions(blow: Blow) -> None:
    """`pg_terminate_backend` on some connections, or all."""
    share = blow.chance.choice([0.2, 0.5, 1.0])
    async with blow.machine.connection() as connection:
        pids = await connection.fetch(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        chosen = [row["pid"] for row in pids if blow.chance.random() < share]
        await connection.execute("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid", chosen)


async def cut_connections(blow: Blow) -> None:
    """Every connection to PostgreSQL cut, in the middle of what it carries."""
    blow.machine.proxy.cut()


async def cut_answers(blow: Blow) -> None:
    """PostgreSQL's answers lost for a while, then the connections: commits of which nobody hears."""
    await blow.machine.proxy.cut_answers(blow.chance.uniform(0.01, 0.2))


async def cut_clients(blow: Blow) -> None:
    """The clients' own connections cut while they wait for an answer."""
    for client in blow.load.clients:
        client.hang_up()


async def step_clock(blow: Blow) -> None:
    """The clock of one API process stepped back; when it strikes there again, set right."""
    file = blow.chance.choice(blow.machine.apis).given.clock
    behind = float(file.read_text())
    new = file.with_suffix(".new")
    new.write_text("0" if behind else str(-blow.chance.uniform(1, 7200)))
    new.replace(file)


async def fill_disk(blow: Blow) -> None:
    """No room left for the database, until several requests were refused, and for a while after."""
    async with _full(blow):
        await asyncio.sleep(blow.chance.uniform(0, 0.5))


async def fill_disk_for_wal(blow: Blow) -> None:
    """No room left for the write-ahead log either: PostgreSQL panics, and cannot start before there is room."""
    async with _full(blow):
        # Each takes a new file of the log, until none is left to be used again.
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            async with asyncio.timeout(FULL_SECONDS_MAX), blow.machine.connection() as connection:
                while True:
                    await connection.execute("SELECT pg_logical_emit_message(false, 'fault', ''), pg_switch_wal()")


@asynccontextmanager
async def _full(blow: Blow) -> AsyncIterator[None]:
    disk = blow.machine.disk
    assert disk is not None
    answers = blow.load.clients[0].witness.answers
    refused = answers[503]
    await asyncio.to_thread(disk.fill)
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(FULL_SECONDS_MAX):
                # Polled: what is waited for happens in other processes.
                while answers[503] < refused + REFUSALS_WHILE_FULL:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        yield
    finally:
        await asyncio.to_thread(disk.free)


Strike = Callable[[Blow], Awaitable[None]]

DECK: dict[Strike, int] = {
    kill_api: 5,
    kill_worker: 4,
    kill_postgres: 3,
    stop_postgres_immediately: 3,
    kill_backend: 2,
    terminate_sessions: 4,
    cut_connections: 4,
    cut_answers: 4,
    cut_clients: 3,
    step_clock: 2,
    fill_disk: 1,
    fill_disk_for_wal: 1,
}
"""How often each kind is among 36 faults: every kind strikes, those soonest over the most often."""


NEED_DISK = (fill_disk, fill_disk_for_wal)


def deck(chance: random.Random, *, with_disk: bool) -> list[Strike]:
    """The next faults, in an order of chance."""
    strikes = [strike for strike, count in DECK.items() if with_disk or strike not in NEED_DISK for _ in range(count)]
    chance.shuffle(strikes)
    return strikes
