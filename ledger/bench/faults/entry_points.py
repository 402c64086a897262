"""Entry points of the processes under test: the API with an adjustable clock, and the worker."""

import asyncio
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import uvloop

from ledger.api.app import listen, serving
from ledger.audit.sealer import find_sealer
from ledger.audit.signing_files import SigningFiles
from ledger.config import Settings, parse_url
from ledger.database import STATEMENT_SECONDS_MAX, Database
from ledger.key_ring import KeyRing
from ledger.logging_setup import configure as configure_logs
from ledger.runtime import background

LOOPBACK = "127.0.0.1"


class ProcessSettings(NamedTuple):
    """The settings of a process. `clock` is a file with the seconds by which its clock is off."""

    database_url: str
    home: Path
    log: Path
    clock: Path


def signing_files(home: Path) -> SigningFiles:
    """Return the signing files of the ledger, with the default origin."""
    return SigningFiles(home, None, Settings().log_origin)


def read_clock(file: Path) -> Callable[[], datetime]:
    """Return a clock that is off by the seconds in a file: stepping the clock of the host would affect everything."""
    return lambda: datetime.now(UTC) + timedelta(seconds=float(file.read_text()))


def run_api(settings: ProcessSettings, ready: "Connection[int, int]") -> None:
    """Serve the API until SIGTERM; send its port through `ready` once it is open."""
    uvloop.run(_run_api(settings, ready))


def run_worker(settings: ProcessSettings, ready: "Connection[int, int]") -> None:
    """Fold events, expire holds and seal until SIGTERM; send 0 through `ready` once started."""
    uvloop.run(_run_worker(settings, ready))


async def _run_api(settings: ProcessSettings, ready: "Connection[int, int]") -> None:
    listener = listen(LOOPBACK, 0)
    port: int = listener.getsockname()[1]
    clock = read_clock(settings.clock)
    async with (
        _process(settings) as (database, stop),
        serving(database, listener, with_worker=False, key_ring=KeyRing(database), clock=clock),
    ):
        ready.send(port)
        await stop.wait()


async def _run_worker(settings: ProcessSettings, ready: "Connection[int, int]") -> None:
    async with _process(settings) as (database, stop):
        sealer = await find_sealer(database, signing_files(settings.home))
        assert sealer is not None
        async with background(database, with_worker=True, sealer=sealer):
            ready.send(0)
            await stop.wait()


@asynccontextmanager
async def _process(settings: ProcessSettings) -> AsyncIterator[tuple[Database, asyncio.Event]]:
    """Yield a database and an event that is set on SIGTERM, or if the parent process, which would send it, is gone."""
    descriptor = os.open(settings.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    configure_logs("INFO", "text")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    parent = multiprocessing.parent_process()
    assert parent is not None
    loop.add_reader(parent.sentinel, stop.set)
    database = Database(parse_url("DATABASE_URL", settings.database_url), statement_seconds_max=STATEMENT_SECONDS_MAX)
    try:
        yield database, stop
    finally:
        await database.close()
