"""The processes under measurement: the API and the worker as they are run, and programs that put load on them."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
from sqlalchemy import URL

import ledger
from ledger.domain.errors import LedgerError

START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 30
MEGABYTE = 1024 * 1024

_OWN = re.compile(r"(DB|LEDGER|DIRECT|REPLICA|PG|DATABASE)[A-Z_]*")


class MeasurementError(LedgerError):
    """Something could not be measured: the message says what went wrong."""


def environment(database: URL | None, folder: Path) -> dict[str, str]:
    """This process's environment with none of the ledger's settings but these; programs import this very package."""
    kept = {name: text for name, text in os.environ.items() if not _OWN.fullmatch(name)}
    if database is not None:
        kept["DATABASE_URL"] = database.set(drivername="postgresql").render_as_string(hide_password=False)
    package = str(Path(ledger.__file__).parents[1])
    return kept | {"PYTHONPATH": package, "LEDGER_HOME": str(folder / "service"), "LEDGER_LOG_LEVEL": "WARNING"}


async def run_program(*command: str | Path, folder: Path, database: URL | None = None, **settings: str) -> str:
    """Run a program to its end; what it printed.

    Raises:
        MeasurementError: it failed.
    """
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        env=environment(database, folder) | settings,
        # Not where we stand: a developer's .env may lie there.
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, errors = await process.communicate()
    finally:
        await _end(process)
    if process.returncode != 0:
        raise MeasurementError(f"{Path(command[0]).name} failed: {(errors or out).decode(errors='replace')[-2000:]}")
    return out.decode(errors="replace")


class Child:
    """A process of the service, running."""

    def __init__(self, process: asyncio.subprocess.Process, first_line: str) -> None:
        self.pid = process.pid
        self.first_line = first_line
        self.process = process

    @property
    def url(self) -> str:
        """Where the API is."""
        return self.first_line.removeprefix("The ledger is at ").split()[0]

    def peak_mb(self) -> float:
        """The most memory that it ever had."""
        with suppress(OSError):
            status = Path(f"/proc/{self.pid}/status").read_text()
            if found := re.search(r"VmHWM:\s+(\d+) kB", status):
                return int(found[1]) / 1024
        return psutil.Process(self.pid).memory_info().rss / MEGABYTE


@asynccontextmanager
async def child(database: URL, folder: Path, *arguments: str) -> AsyncIterator[Child]:
    """Run `ledger` with these arguments while inside; its log is in the folder.

    Raises:
        MeasurementError: it did not start.
    """
    log = folder / f"{arguments[0]}.log"
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ledger", *arguments),
            env=environment(database, folder),
            cwd=folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(START_SECONDS_MAX):
            first_line = (await process.stdout.readline()).decode()
        if not first_line.startswith("The "):
            raise MeasurementError(f"`ledger {arguments[0]}` did not start: {log.read_text()[-2000:]}")
        yield Child(process, first_line)
        if process.returncode is not None:
            raise MeasurementError(f"`ledger {arguments[0]}` ended by itself: {log.read_text()[-2000:]}")
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask it to end, then end it: nothing that was started here is left behind."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS_MAX):
            await process.wait()
    except TimeoutError:
        pass
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
