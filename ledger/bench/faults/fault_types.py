"""The types of faults (kill, cut, fill the disk, step the clock), and their random schedule."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

import asyncpg
import psutil

from ledger.bench.faults.agents import Agents
from ledger.bench.faults.system_under_test import SystemUnderTest, kill_all

DISK_FULL_SECONDS_MAX = 6.0
REFUSALS_WHILE_FULL = 5


class FaultContext(NamedTuple):
    """What a fault acts on, and its source of random numbers."""

    system: SystemUnderTest
    agents: Agents
    rng: random.Random


Fault = Callable[[FaultContext], Awaitable[None]]


async def kill_api(context: FaultContext) -> None:
    """Send SIGKILL to one API process while others serve; sometimes to all."""
    apis = context.system.apis
    for api in apis if context.rng.random() < 0.2 else [context.rng.choice(apis)]:
        await api.kill()
    await asyncio.sleep(context.rng.uniform(0, 0.2))


async def kill_worker(context: FaultContext) -> None:
    """Send SIGKILL to one worker, which also seals and expires holds; sometimes to both."""
    workers = context.system.workers
    for worker in workers if context.rng.random() < 0.3 else [context.rng.choice(workers)]:
        await worker.kill()
    await asyncio.sleep(context.rng.uniform(0, 0.2))


async def kill_postgres(context: FaultContext) -> None:
    """Send SIGKILL to all processes of PostgreSQL, or only to the main one."""
    postmaster = context.system.postmaster()
    assert postmaster is not None
    all_processes = context.rng.random() < 0.5
    kill_all([postmaster, *(postmaster.children(recursive=True) if all_processes else [])])
    await _leave_postgres_stopped(context)


async def stop_postgres_immediately(context: FaultContext) -> None:
    """Stop PostgreSQL as `pg_ctl stop -m immediate` does: without a checkpoint."""
    postmaster = context.system.postmaster()
    assert postmaster is not None
    postmaster.send_signal(signal.SIGQUIT)
    await _leave_postgres_stopped(context)


async def _leave_postgres_stopped(context: FaultContext) -> None:
    await context.system.wait_until_postgres_died()
    await asyncio.sleep(context.rng.uniform(0, 0.3))


async def kill_backend(context: FaultContext) -> None:
    """Send SIGKILL to one backend of a client: PostgreSQL discards its shared memory and recovers from the WAL."""
    postmaster = context.system.postmaster()
    assert postmaster is not None
    backends = []
    for child in postmaster.children():
        with suppress(psutil.NoSuchProcess):
            if "127.0.0.1(" in " ".join(child.cmdline()):
                backends.append(child)
    kill_all([context.rng.choice(backends)] if backends else [])


async def terminate_sessions(context: FaultContext) -> None:
    """Call `pg_terminate_backend` for some client connections, or all."""
    share = context.rng.choice([0.2, 0.5, 1.0])
    async with context.system.connection() as connection:
        pids = await connection.fetch(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        chosen = [row["pid"] for row in pids if context.rng.random() < share]
        await connection.execute("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid", chosen)


async def cut_connections(context: FaultContext) -> None:
    """Cut every connection to PostgreSQL, even in the middle of a message."""
    context.system.proxy.cut()


async def cut_answers(context: FaultContext) -> None:
    """Drop PostgreSQL's responses for a while, then cut the connections: commits whose outcome stays unknown."""
    await context.system.proxy.cut_responses(context.rng.uniform(0.01, 0.2))


async def cut_clients(context: FaultContext) -> None:
    """Cut the connections of the clients while they wait for a response."""
    for client in context.agents.clients:
        client.cut_connection()


async def step_clock(context: FaultContext) -> None:
    """Step the clock of one API process back; if it already is, correct it."""
    file = context.rng.choice(context.system.apis).settings.clock
    offset = float(file.read_text())
    new_file = file.with_suffix(".new")
    new_file.write_text("0" if offset else str(-context.rng.uniform(1, 7200)))
    new_file.replace(file)


async def fill_disk(context: FaultContext) -> None:
    """Fill the disk of the database until several requests were refused, and a moment longer."""
    async with _full_disk(context):
        await asyncio.sleep(context.rng.uniform(0, 0.5))


async def fill_disk_for_wal(context: FaultContext) -> None:
    """Fill the disk for the WAL too: PostgreSQL panics, and cannot start before space is free."""
    async with _full_disk(context):
        # Each statement switches to the next WAL segment, until no recycled segment is left.
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            async with asyncio.timeout(DISK_FULL_SECONDS_MAX), context.system.connection() as connection:
                while True:
                    await connection.execute("SELECT pg_logical_emit_message(false, 'fault', ''), pg_switch_wal()")


@asynccontextmanager
async def _full_disk(context: FaultContext) -> AsyncIterator[None]:
    """Fill the disk; enter the block once requests are refused, or after a timeout."""
    disk = context.system.disk
    assert disk is not None
    statuses = context.agents.clients[0].history.statuses
    refused_before = statuses[503]
    await asyncio.to_thread(disk.fill)
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(DISK_FULL_SECONDS_MAX):
                # Polled, since the refusals happen in other processes.
                while statuses[503] < refused_before + REFUSALS_WHILE_FULL:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        yield
    finally:
        await asyncio.to_thread(disk.free)


FAULT_COUNTS: dict[Fault, int] = {
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
"""How often each type occurs in a schedule of 36 faults; those that the service recovers from quickly occur most."""

DISK_FAULTS = (fill_disk, fill_disk_for_wal)


def schedule(rng: random.Random, *, with_disk: bool) -> list[Fault]:
    """Return the next faults in random order."""
    faults = [
        fault for fault, count in FAULT_COUNTS.items() if with_disk or fault not in DISK_FAULTS for _ in range(count)
    ]
    rng.shuffle(faults)
    return faults
