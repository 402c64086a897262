"""Worker processes that start immediately: forked from a process that has imported everything."""

import asyncio
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess

import uvloop
from sqlalchemy import URL

from ledger.cli.event_loop import stop_signal
from ledger.database import Database
from projections import worker as worker_module
from projections.worker import Worker

_forking = multiprocessing.get_context("forkserver")
_forking.set_forkserver_preload([__name__])


def work(url: URL, page_events_max: int) -> None:
    """Fold pages of at most `page_events_max` events until SIGTERM."""
    worker_module.FOLD_PAGE_EVENTS_MAX = page_events_max
    uvloop.run(_work(url))


async def _work(url: URL) -> None:
    stop = stop_signal()
    database = Database(url, pool_size=2)
    worker = Worker(database)
    running = asyncio.create_task(worker.run())
    await stop.wait()
    worker.stop()
    await running
    await database.close()


@contextmanager
def worker_process(url: URL, page_events_max: int = 5_000) -> Iterator[BaseProcess]:
    """Run a worker process while inside; it is killed at the end."""
    process = _forking.Process(target=work, args=(url, page_events_max), daemon=True)
    process.start()
    try:
        yield process
    finally:
        with suppress(ValueError):
            process.kill()
            process.join()
