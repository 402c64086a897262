"""Several workers, one active: whoever is left goes on within two seconds; who is asked to end finishes its page."""

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

STUCK = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%budget_entries%'
"""


@asynccontextmanager
async def workers(database_url: URL, folder: Path, number: int) -> AsyncIterator[list[Running]]:
    """So many `ledger worker`, as processes of their own, listening and at rest."""
    async with AsyncExitStack() as stack:
        running = await asyncio.gather(
            *(stack.enter_async_context(started(folder, "worker", database=database_url)) for _ in range(number))
        )
        await asyncio.gather(*(worker.line(IS_RUNNING) for worker in running))
        yield list(running)


async def cost_is_shown(database: Database, appender: Appender) -> float:
    """Append a cost; the seconds until the tables show it."""
    began = time.monotonic()
    await appender.append(request(cost()))
    await folded_up_to(database, await value(database, "SELECT position FROM ledger.log_head"))
    return time.monotonic() - began


@pytest.mark.parametrize("busy", [True, False], ids=["while events arrive", "while idle"])
async def test_when_a_worker_is_killed_another_has_taken_over_within_two_seconds(
    database: Database, database_url: URL, tmp_path: Path, busy: bool
) -> None:
    taken_over = []
    async with workers(database_url, tmp_path, 3) as running, background(database, with_worker=False) as (appender, _):
        await cost_is_shown(database, appender)
        enough = asyncio.Event()
        arriving = asyncio.create_task(arrive(appender, enough) if busy else enough.wait())
        for worker in running[:-1]:
            await asyncio.sleep(0.3)
            await worker.stop(signal.SIGKILL)
            taken_over.append(await cost_is_shown(database, appender))
        enough.set()
        await arriving
        await folded_up_to(database, await value(database, "SELECT position FROM ledger.log_head"))
        code = await running[-1].stop()

    assert max(taken_over) < TAKE_OVER_SECONDS_MAX
    assert code == 0
    assert await tables(database) == folded(await stored(database))


async def arrive(appender: Appender, enough: asyncio.Event) -> None:
    opened = campaign()
    await appender.append(request(opened))
    while not enough.is_set():
        await appender.append(request(*(cost("0.1", campaign_id=opened["id"]) for _ in range(10))))
        await asyncio.sleep(0.005)


@asynccontextmanager
async def stuck_in_a_page(database_url: URL) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Workers that fold get stuck in the middle of their page; yields what waits for one."""
    async with connected(database_url) as holder, connected(database_url) as watcher, holder.transaction():
        await holder.execute("LOCK TABLE budget_entries IN EXCLUSIVE MODE")

        async def one_is_stuck() -> None:
            await until(lambda: watcher.fetchval(STUCK))

        yield one_is_stuck


async def test_a_worker_killed_while_it_holds_the_checkpoint_is_followed_within_two_seconds(
    database: Database, database_url: URL
) -> None:
    opened = campaign()
    await record(database, opened, cost("3", campaign_id=opened["id"]))
    with ExitStack() as processes:
        async with stuck_in_a_page(database_url) as one_is_stuck:
            first = processes.enter_context(worker_process(database_url))
            await one_is_stuck()
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


async def test_asked_to_end_in_the_middle_of_a_page_a_worker_finishes_it(
    database: Database, database_url: URL, tmp_path: Path
) -> None:
    await record(database, *(cost() for _ in range(10)))
    async with AsyncExitStack() as processes:
        async with stuck_in_a_page(database_url) as one_is_stuck:
            worker = await processes.enter_async_context(started(tmp_path, "worker", database=database_url))
            await one_is_stuck()
            worker.process.terminate()
            await asyncio.sleep(0.3)
            ended_early = worker.process.returncode is not None
            unfinished = await position(database)
        code = await asyncio.wait_for(worker.process.wait(), 10)

    assert (ended_early, unfinished, code, await position(database)) == (False, 0, 0, 10)
    assert "Traceback" not in worker.errors.read_text()


async def test_asked_to_end_while_it_starts_a_worker_ends_quietly(database_url: URL, tmp_path: Path) -> None:
    async def told_after(seconds: float) -> tuple[int, str]:
        folder = tmp_path / str(seconds)
        folder.mkdir()
        async with started(folder, "worker", database=database_url) as worker:
            await asyncio.sleep(seconds)
            return await worker.stop(), worker.errors.read_text()

    ended = await asyncio.gather(*(told_after(seconds) for seconds in (0, 0.3, 0.7, 1.0, 1.3, 1.6)))

    # Before there is anything to end in order the signal itself may show; never an error.
    assert {code for code, _ in ended} <= {0, 128 + signal.SIGTERM, -signal.SIGTERM}
    assert [errors for _, errors in ended] == [""] * len(ended)


async def test_asked_to_end_as_soon_as_it_runs_a_worker_ends_in_order(database_url: URL, tmp_path: Path) -> None:
    async with workers(database_url, tmp_path, 1) as (worker,):
        code = await worker.stop()

    assert (code, worker.errors.read_text()) == (0, "")
