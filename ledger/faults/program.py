"""What the processes under test run: `ledger serve`'s API, with a given clock, and `ledger worker`'s worker."""

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
from ledger.keys import KeyRing
from ledger.logging_setup import configure as configure_logs
from ledger.runtime import background

LOOPBACK = "127.0.0.1"


class Given(NamedTuple):
    """What a process is told. `clock` is a file with the seconds that its clock is off."""

    database_url: str
    home: Path
    log: Path
    clock: Path


def signing_files(home: Path) -> SigningFiles:
    """The files of the sealed log, under its usual name."""
    return SigningFiles(home, None, Settings().log_origin)


def read_clock(file: Path) -> Callable[[], datetime]:
    """A clock that is off by what stands in a file, for the machine's own is not ours to step."""
    return lambda: datetime.now(UTC) + timedelta(seconds=float(file.read_text()))


def serve_api(given: Given, ready: "Connection[int, int]") -> None:
    """Serve the API until SIGTERM; the port is told once it is open."""
    uvloop.run(_serve_api(given, ready))


def work(given: Given, ready: "Connection[int, int]") -> None:
    """Keep the read models, expire holds and seal until SIGTERM."""
    uvloop.run(_work(given, ready))


async def _serve_api(given: Given, ready: "Connection[int, int]") -> None:
    listener = listen(LOOPBACK, 0)
    port: int = listener.getsockname()[1]
    async with (
        _process(given) as (database, stop),
        serving(database, listener, with_worker=False, key_ring=KeyRing(database), clock=read_clock(given.clock)),
    ):
        ready.send(port)
        await stop.wait()


async def _work(given: Given, ready: "Connection[int, int]") -> None:
    async with _process(given) as (database, stop):
        sealer = await find_sealer(database, signing_files(given.home))
        assert sealer is not None
        async with background(database, with_worker=True, sealer=sealer):
            ready.send(0)
            await stop.wait()


@asynccontextmanager
async def _process(given: Given) -> AsyncIterator[tuple[Database, asyncio.Event]]:
    """An database as a service has it, and what tells the end: SIGTERM, or that nobody is left who would send it."""
    descriptor = os.open(given.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    configure_logs("INFO", "text")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    parent = multiprocessing.parent_process()
    assert parent is not None
    loop.add_reader(parent.sentinel, stop.set)
    database = Database(parse_url("DATABASE_URL", given.database_url), statement_seconds_max=STATEMENT_SECONDS_MAX)
    try:
        yield database, stop
    finally:
        await database.close()
