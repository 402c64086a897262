"""Failover between workers within two seconds, and a worker that is terminated finishes its page."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL

from ledger.database import Database
from ledger.log.appender import Appender
from ledger.runtime import background
from tests.cli.helpers import Running, started
from tests.events import campaign, cost
from tests.log.helpers import connected, query, record, request, until, value
from tests.projections.helpers import folded, folded_up_to, position, stored, tables
from tests.projections.processes import worker_process

IS_RUNNING = "The worker is running"
TAKE_OVER_SECONDS_MAX = 2.0

BLOCKED = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%budget_entries%'
"""


@asynccontextmanager
async def workers(database_url: URL, folder: Path, number: int) -> AsyncIterator[list[Running]]:
    """Run `number` processes of `ledger worker` while inside; yields them once they are idle."""
    async with AsyncExitStack() as stack:
        running = await asyncio.gather(
            *(stack.enter_async_context(started(folder, "worker", database=database_url)) for _ in range(number))
        )
        await asyncio.gather(*(worker.line(IS_RUNNING) for worker in running))
        yield list(running)


async def seconds_until_folded(database: Database, appender: Appender) -> float:
    """Append a cost; return the seconds until the tables show it."""
    began = time.monotonic()
    await appender.append(request(cost()))
    await folded_up_to(database, await value(database, "SELECT position FROM ledger.log_head"))
    return time.monotonic() - began


@pytest.mark.parametrize("busy", [True, False], ids=["while events arrive", "while idle"])
async def test_another_worker_takes_over_from_a_killed_one_within_two_seconds(
    database: Database, database_url: URL, tmp_path: Path, busy: bool
) -> None:
    taken_over = []
    async with workers(database_url, tmp_path, 3) as running, background(database, with_worker=False) as (appender, _):
        await seconds_until_folded(database, appender)
        stopping = asyncio.Event()
        appending = asyncio.create_task(append_costs(appender, stopping) if busy else stopping.wait())
        for worker in running[:-1]:
            await asyncio.sleep(0.3)
            await worker.stop(signal.SIGKILL)
            taken_over.append(await seconds_until_folded(database, appender))
        stopping.set()
        await appending
        await folded_up_to(database, await value(database, "SELECT position FROM ledger.log_head"))
        code = await running[-1].stop()

    assert max(taken_over) < TAKE_OVER_SECONDS_MAX
    assert code == 0
    assert await tables(database) == folded(await stored(database))


async def append_costs(appender: Appender, stopping: asyncio.Event) -> None:
    opened = campaign()
    await appender.append(request(opened))
    while not stopping.is_set():
        await appender.append(request(*(cost("0.1", campaign_id=opened["id"]) for _ in range(10))))
        await asyncio.sleep(0.005)


@asynccontextmanager
async def blocked_in_a_page(database_url: URL) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Block workers in the middle of a page; yields a function that waits until one is blocked."""
    async with connected(database_url) as holder, connected(database_url) as watcher, holder.transaction():
        await holder.execute("LOCK TABLE budget_entries IN EXCLUSIVE MODE")

        async def one_is_blocked() -> None:
            await until(lambda: watcher.fetchval(BLOCKED))

        yield one_is_blocked


async def test_another_worker_takes_over_the_checkpoint_of_a_killed_one_within_two_seconds(
    database: Database, database_url: URL
) -> None:
    opened = campaign()
    await record(database, opened, cost("3", campaign_id=opened["id"]))
    with ExitStack() as processes:
        async with blocked_in_a_page(database_url) as one_is_blocked:
            first = processes.enter_context(worker_process(database_url))
            await one_is_blocked()
            processes.enter_context(worker_process(database_url))
            await asyncio.sleep(0.2)
            first.kill()
            first.join()
            before = await position(database)
        released = time.monotonic()
        await folded_up_to(database, 2)
        seconds = time.monotonic() - released

    assert (before, seconds < TAKE_OVER_SECONDS_MAX) == (0, True)
    assert await query(database, "SELECT spend FROM campaigns") == [(3,)]
    assert await tables(database) == folded(await stored(database))


async def test_a_worker_terminated_in_the_middle_of_a_page_finishes_it(
    database: Database, database_url: URL, tmp_path: Path
) -> None:
    await record(database, *(cost() for _ in range(10)))
    async with AsyncExitStack() as processes:
        async with blocked_in_a_page(database_url) as one_is_blocked:
            worker = await processes.enter_async_context(started(tmp_path, "worker", database=database_url))
            await one_is_blocked()
            worker.process.terminate()
            await asyncio.sleep(0.3)
            ended_early = worker.process.returncode is not None
            unfinished = await position(database)
        code = await asyncio.wait_for(worker.process.wait(), 10)

    assert (ended_early, unfinished, code, await position(database)) == (False, 0, 0, 10)
    assert "Traceback" not in worker.errors.read_text()


async def test_a_worker_terminated_while_it_starts_prints_no_error(database_url: URL, tmp_path: Path) -> None:
    async def terminated_after(seconds: float) -> tuple[int, str]:
        folder = tmp_path / str(seconds)
        folder.mkdir()
        async with started(folder, "worker", database=database_url) as worker:
            await asyncio.sleep(seconds)
            return await worker.stop(), worker.errors.read_text()

    ended = await asyncio.gather(*(terminated_after(seconds) for seconds in (0, 0.3, 0.7, 1.0, 1.3, 1.6)))

    # Before the worker handles the signal, it may end the process itself; never an error message.
    assert {code for code, _ in ended} <= {0, 128 + signal.SIGTERM, -signal.SIGTERM}
    assert [errors for _, errors in ended] == [""] * len(ended)


async def test_a_worker_terminated_as_soon_as_it_runs_exits_with_code_0(database_url: URL, tmp_path: Path) -> None:
    async with workers(database_url, tmp_path, 1) as (worker,):
        code = await worker.stop()

    assert (code, worker.errors.read_text()) == (0, "")
