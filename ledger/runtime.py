"""What runs beside the requests in a process: the appender, the signal, and where wanted worker, sweeper and sealer."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

from ledger.audit.sealer import Sealer
from ledger.database import Database
from ledger.log.appender import Appender
from ledger.log.expiry import sweep
from ledger.log.notifications import LogSignal, Notifier
from projections.worker import Worker


@asynccontextmanager
async def background(
    database: Database,
    *,
    with_worker: bool,
    sealer: Sealer | None = None,
    direct: Database | None = None,
    on_group: Callable[[int, float], None] = lambda events, seconds: None,
    clock: Callable[[], datetime] | None = None,
) -> AsyncIterator[tuple[Appender, LogSignal]]:
    """Run them while inside; leaving records what was accepted, and lets the worker finish its page.

    Args:
        with_worker: keep the read models and expire holds in this process.
        sealer: seal the log in this process.
        direct: a way past the pooler, where `database` goes through one.
        on_group: see `Appender`.
        clock: what events are recorded by; the server's own when None.
    """
    signal = LogSignal()
    notifier = Notifier(database, signal, direct)
    worker = Worker(database, signal)
    async with (
        Appender(database, on_append=notifier.announce, on_group=on_group, clock=clock) as appender,
        asyncio.TaskGroup() as tasks,
    ):
        endless = [tasks.create_task(notifier.run(), name="herald")]
        if with_worker:
            tasks.create_task(worker.run(), name="worker")
            endless.append(tasks.create_task(sweep(database, appender, signal), name="sweeper"))
        if sealer is not None:
            endless.append(tasks.create_task(sealer.run(signal), name="sealer"))
        try:
            yield appender, signal
        finally:
            worker.stop()
            for task in endless:
                task.cancel()
