"""What runs beside the requests in a process: the appender, the bell, and where wanted worker, sweeper and sealer."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.audit.sealer import Sealer
from ledger.log.appender import Appender
from ledger.log.bell import Bell, Herald
from ledger.log.expiry import sweep
from projections.worker import Worker


@asynccontextmanager
async def background(
    engine: AsyncEngine,
    *,
    with_worker: bool,
    sealer: Sealer | None = None,
    direct: AsyncEngine | None = None,
    on_group: Callable[[int, float], None] = lambda events, seconds: None,
    clock: Callable[[], datetime] | None = None,
) -> AsyncIterator[tuple[Appender, Bell]]:
    """Run them while inside; leaving records what was accepted, and lets the worker finish its page.

    Args:
        with_worker: keep the read models and expire holds in this process.
        sealer: seal the log in this process.
        direct: a way past the pooler, where `engine` goes through one.
        on_group: see `Appender`.
        clock: what events are recorded by; the server's own when None.
    """
    bell = Bell()
    herald = Herald(engine, bell, direct)
    worker = Worker(engine, bell)
    async with (
        Appender(engine, on_append=herald.announce, on_group=on_group, clock=clock) as appender,
        asyncio.TaskGroup() as tasks,
    ):
        endless = [tasks.create_task(herald.run(), name="herald")]
        if with_worker:
            tasks.create_task(worker.run(), name="worker")
            endless.append(tasks.create_task(sweep(engine, appender, bell), name="sweeper"))
        if sealer is not None:
            endless.append(tasks.create_task(sealer.run(bell), name="sealer"))
        try:
            yield appender, bell
        finally:
            worker.stop()
            for task in endless:
                task.cancel()
