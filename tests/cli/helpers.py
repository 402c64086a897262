"""Helpers that run the command `ledger` as a process: to its end, or in the background."""

import asyncio
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import aiohttp
import psutil
from sqlalchemy import URL

from tests.servers.kinds import direct_url, replica_url

REPOSITORY = Path(__file__).parents[2]
PYTHON = sys.executable
LEDGER = (PYTHON, "-m", "ledger")

START_SECONDS_MAX = 60


class CommandResult(NamedTuple):
    """Exit code, stdout and stderr of a command that has ended."""

    code: int
    out: str
    err: str


def plain(url: URL) -> str:
    """Return the URL as a user would write it."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def environment(database: URL | str | None = None, **settings: str) -> dict[str, str]:
    """Return this process's environment, with only the given settings of the ledger.

    Programs that run in it import this checkout. A first start imports no prices, unless a test asks for it: a log with
    thousands of prices makes every other test slower.

    Args:
        database: DATABASE_URL; a URL of a test server also sets the URLs of its direct connection and its replica.
        settings: further variables.

    Returns:
        the environment.
    """
    setting = re.compile(r"(DB|LEDGER|DIRECT|REPLICA|PG|DATABASE)[A-Z_]*")
    variables = {name: value for name, value in os.environ.items() if not setting.fullmatch(name)}
    if database is not None:
        variables["DATABASE_URL"] = plain(database) if isinstance(database, URL) else database
    if isinstance(database, URL):
        if direct_url(database) != database:
            variables["DIRECT_DATABASE_URL"] = plain(direct_url(database))
        if (replica := replica_url(database)) is not None:
            variables["REPLICA_DATABASE_URL"] = plain(replica)
    return variables | {"PYTHONPATH": str(REPOSITORY), "LEDGER_IMPORT_PRICES": "no"} | settings


async def run(
    *command: str | Path, env: dict[str, str] | None = None, stdin: bytes = b"", cwd: Path | str = "/"
) -> CommandResult:
    """Run a command to its end, by default not in the checkout, which may contain a developer's .env.

    Args:
        command: the program and its arguments.
        env: its environment; `environment()` if None.
        stdin: bytes to write to its standard input.
        cwd: its working directory.

    Returns:
        how it ended.
    """
    # Not through pipes: of output that is larger than their buffers, the end was lost on a busy machine.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            env=env or environment(),
            cwd=cwd,
            stdin=asyncio.subprocess.PIPE,
            stdout=out,
            stderr=err,
        )
        try:
            await asyncio.wait_for(process.communicate(stdin), START_SECONDS_MAX)
        except BaseException:
            process.kill()
            raise
        assert process.returncode is not None
        texts = [_content(file) for file in (out, err)]
    return CommandResult(process.returncode, *texts)


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


async def ledger(
    *arguments: str | Path, database: URL | str | None = None, stdin: bytes = b"", **settings: str
) -> CommandResult:
    return await run(*LEDGER, *arguments, env=environment(database, **settings), stdin=stdin)


class Running:
    """A command that runs until it is stopped."""

    def __init__(self, process: asyncio.subprocess.Process, errors: Path) -> None:
        self.process = process
        self.errors = errors
        self.output = ""

    async def line(self, beginning: str) -> str:
        """Wait for a line of stdout with this beginning; return the rest of the line."""
        assert self.process.stdout is not None
        async with asyncio.timeout(START_SECONDS_MAX):
            while read := (await self.process.stdout.readline()).decode():
                self.output += read
                if read.startswith(beginning):
                    return read.removeprefix(beginning).strip()
        raise AssertionError(f"no line {beginning!r} in {self.output!r}; {self.errors.read_text()}")

    async def url(self) -> str:
        """Wait until it serves; return its URL."""
        return (await self.line("The ledger is at ")).split()[0]

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), 30)


@asynccontextmanager
async def started(
    folder: Path, *arguments: str | Path, database: URL | str | None = None, **settings: str
) -> AsyncIterator[Running]:
    """Start `ledger` in the background; on exit it is killed if it still runs.

    Args:
        folder: for the file with its stderr.
        arguments: of `ledger`.
        database: DATABASE_URL.
        settings: further variables of its environment.

    Yields:
        the running command.
    """
    errors = folder / f"{arguments[0]}.log"
    with errors.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *LEDGER,
            *map(str, arguments),
            env=environment(database, **settings),
            cwd="/",
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
    try:
        yield Running(process, errors)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def postgres_of(home: Path) -> int | None:
    """Return the pid of a home's PostgreSQL, found without the code under test; None if it does not run."""
    for process in psutil.process_iter(["name", "cmdline"]):
        if process.info["name"] == "postgres" and str(home / "postgres" / "data") in (process.info["cmdline"] or ()):
            return process.pid
    return None


def remove(home: Path) -> None:
    """Stop the PostgreSQL of a home if it still runs, and delete the home: it takes tens of megabytes."""
    if pid := postgres_of(home):
        with suppress(psutil.Error):
            postmaster = psutil.Process(pid)
            postmaster.send_signal(signal.SIGINT)
            postmaster.wait(30)
    shutil.rmtree(home, ignore_errors=True)


def key_of(home: Path) -> dict[str, str]:
    """Return the request header with the admin key of this home."""
    return {"Authorization": f"Bearer {(home / 'admin.key').read_text().strip()}"}


async def get(url: str, home: Path | None = None, **parameters: Any) -> Any:
    """Return the JSON at a URL, which must answer 200; with the admin key of `home` if that is given."""
    headers = key_of(home) if home is not None else {}
    async with aiohttp.ClientSession(headers=headers) as client, client.get(url, params=parameters) as answer:
        body = await answer.json(content_type=None)
        assert answer.status == 200, body
        return body
