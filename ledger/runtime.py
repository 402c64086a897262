"""Background tasks of a process: appender, notifier; worker, hold expiry, sealer, re-verification."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

from ledger.audit.reverification import Reverifier
from ledger.audit.sealer import Sealer
from ledger.config import REVERIFY_HOURS
from ledger.database import Database
from ledger.log.appender import Appender
from ledger.log.expiry import expire_holds
from ledger.log.notifications import LogSignal, Notifier
from projections.worker import Worker


@asynccontextmanager
async def background(
    database: Database,
    *,
    with_worker: bool,
    sealer: Sealer | None = None,
    direct: Database | None = None,
    appends: Database | None = None,
    on_group: Callable[[int, float, str], None] = lambda events, seconds, path: None,
    clock: Callable[[], datetime] | None = None,
    reverify_hours: float = REVERIFY_HOURS,
) -> AsyncIterator[tuple[Appender, LogSignal]]:
    """Run the background tasks within the context; on exit, drain the appender and let the worker finish its page.

    Args:
        database: the database of the log.
        with_worker: whether to update the read models and expire holds in this process.
        sealer: seals the log in this process, if given.
        direct: the same database without a transaction-mode pooler in between, if `database` goes through one.
        appends: the same database with a pool for appends alone, which readers cannot exhaust; None: `database`.
        on_group: called with the number of events, the seconds and the path of each group commit.
        clock: the time for `recorded_at`; the clock of the database server when None.
        reverify_hours: the time in which a process that seals hashes the whole sealed log again.

    Yields:
        the appender, and the signal that the log has grown.
    """
    signal = LogSignal()
    notifier = Notifier(database, signal, direct)
    worker = Worker(database, signal)
    async with (
        Appender(appends or database, on_append=notifier.publish, on_group=on_group, clock=clock) as appender,
        asyncio.TaskGroup() as tasks,
    ):
        endless = [tasks.create_task(notifier.run(), name="notifier")]
        if with_worker:
            tasks.create_task(worker.run(), name="worker")
            endless.append(tasks.create_task(expire_holds(database, appender, signal), name="hold-expiry"))
        if sealer is not None:
            endless.append(tasks.create_task(sealer.run(signal), name="sealer"))
            reverifier = Reverifier(database, reverify_hours)
            endless.append(tasks.create_task(reverifier.run(), name="re-verification"))
        try:
            yield appender, signal
        finally:
            worker.stop()
            for task in endless:
                task.cancel()
