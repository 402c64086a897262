"""Child processes of the benchmarks: API and worker as operators run them, and load generators."""

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
from ledger.bench.errors import MeasurementError

START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 30
MEGABYTE = 1024 * 1024

_LEDGER_VARIABLE = re.compile(r"(DB|LEDGER|DIRECT|REPLICA|PG|DATABASE)[A-Z_]*")


def child_environment(database: URL | None, folder: Path) -> dict[str, str]:
    """Return this process's environment variables, with the ledger's own settings replaced by those of the benchmark.

    PYTHONPATH makes the child import this very package, installed or not.
    """
    variables = {name: value for name, value in os.environ.items() if not _LEDGER_VARIABLE.fullmatch(name)}
    if database is not None:
        variables["DATABASE_URL"] = database.set(drivername="postgresql").render_as_string(hide_password=False)
    package = str(Path(ledger.__file__).parents[1])
    return variables | {"PYTHONPATH": package, "LEDGER_HOME": str(folder / "service"), "LEDGER_LOG_LEVEL": "WARNING"}


async def run_program(*command: str | Path, folder: Path, database: URL | None = None, **variables: str) -> str:
    """Run a program to its end.

    Args:
        command: the program and its arguments.
        folder: the working directory.
        database: becomes DATABASE_URL.
        variables: more environment variables.

    Returns:
        its standard output.

    Raises:
        MeasurementError: its exit code was not 0.
    """
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        env=child_environment(database, folder) | variables,
        # Not this process's working directory, which may contain a developer's .env.
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, errors = await process.communicate()
    finally:
        await end_process(process)
    if process.returncode != 0:
        raise MeasurementError(f"{Path(command[0]).name} failed: {(errors or out).decode(errors='replace')[-2000:]}")
    return out.decode(errors="replace")


class Child:
    """A running process of the service."""

    def __init__(self, process: asyncio.subprocess.Process, first_line: str) -> None:
        self.pid = process.pid
        self.first_line = first_line
        self.process = process

    @property
    def url(self) -> str:
        """The base URL of the API."""
        return self.first_line.removeprefix("The ledger is at ").split()[0]

    def peak_mb(self) -> float:
        """Return the peak resident memory in MB; outside Linux, which alone records it, the current one."""
        with suppress(OSError):
            status = Path(f"/proc/{self.pid}/status").read_text()
            if match := re.search(r"VmHWM:\s+(\d+) kB", status):
                return int(match[1]) / 1024
        return psutil.Process(self.pid).memory_info().rss / MEGABYTE


@asynccontextmanager
async def child(database: URL, folder: Path, *arguments: str, **variables: str) -> AsyncIterator[Child]:
    """Run `ledger` with these arguments; its log goes to a file in the folder.

    Args:
        database: becomes DATABASE_URL.
        folder: the working directory.
        arguments: the command, such as `serve`, and its options.
        variables: more environment variables.

    Yields:
        the process, once it has started.

    Raises:
        MeasurementError: it did not start, or ended early.
    """
    log = folder / f"{arguments[0]}.log"
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ledger", *arguments),
            env=child_environment(database, folder) | variables,
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
            raise MeasurementError(f"`ledger {arguments[0]}` ended unexpectedly: {log.read_text()[-2000:]}")
    finally:
        await end_process(process)


async def end_process(process: asyncio.subprocess.Process) -> None:
    """Send SIGTERM, then SIGKILL after STOP_SECONDS_MAX, so that no child process is left behind."""
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
