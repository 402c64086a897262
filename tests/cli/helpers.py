"""The real command `ledger` as processes of their own."""

import asyncio
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import psutil
from sqlalchemy import URL

REPOSITORY = Path(__file__).parents[2]
PYTHON = sys.executable
LEDGER = (PYTHON, "-m", "ledger")

START_SECONDS_MAX = 60


class Said(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def plain(url: URL) -> str:
    """The URL as a user would write it."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def environment(database: URL | str | None = None, **settings: str) -> dict[str, str]:
    """This process's environment, with none of the ledger's settings but these; programs import this checkout."""
    own = re.compile(r"(DB|LEDGER|DIRECT|REPLICA|PG|DATABASE)[A-Z_]*")
    kept = {name: value for name, value in os.environ.items() if not own.fullmatch(name)}
    if database is not None:
        kept["DATABASE_URL"] = plain(database) if isinstance(database, URL) else database
    return kept | {"PYTHONPATH": str(REPOSITORY)} | settings


async def run(
    *command: str | Path, env: dict[str, str] | None = None, stdin: bytes = b"", cwd: Path | str = "/"
) -> Said:
    """Run a command to its end; not in the checkout, where a developer's .env may lie."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        env=env or environment(),
        cwd=cwd,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(stdin), START_SECONDS_MAX)
    except BaseException:
        process.kill()
        raise
    assert process.returncode is not None
    return Said(process.returncode, out.decode(), err.decode())


async def ledger(
    *arguments: str | Path, database: URL | str | None = None, stdin: bytes = b"", **settings: str
) -> Said:
    return await run(*LEDGER, *arguments, env=environment(database, **settings), stdin=stdin)


class Running:
    """A command that goes on until it is told to stop."""

    def __init__(self, process: asyncio.subprocess.Process, errors: Path) -> None:
        self.process = process
        self.errors = errors
        self.said = ""

    async def line(self, beginning: str) -> str:
        """Wait for a line that begins so; what follows."""
        assert self.process.stdout is not None
        async with asyncio.timeout(START_SECONDS_MAX):
            while read := (await self.process.stdout.readline()).decode():
                self.said += read
                if read.startswith(beginning):
                    return read.removeprefix(beginning).strip()
        raise AssertionError(f"no line {beginning!r} in {self.said!r}; {self.errors.read_text()}")

    async def url(self) -> str:
        """Wait until it serves; where."""
        return (await self.line("The ledger is at ")).split()[0]

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), 30)


@asynccontextmanager
async def started(
    folder: Path, *arguments: str | Path, database: URL | str | None = None, **settings: str
) -> AsyncIterator[Running]:
    """A running `ledger`, killed at the latest on leaving. Its log goes into the folder."""
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
    """The pid of a home's PostgreSQL, found without the code under test."""
    for process in psutil.process_iter(["name", "cmdline"]):
        if process.info["name"] == "postgres" and str(home / "postgres" / "data") in (process.info["cmdline"] or ()):
            return process.pid
    return None


def remove(home: Path) -> None:
    """Stop what is left of a home, and delete it: it fills tens of megabytes."""
    if pid := postgres_of(home):
        with suppress(psutil.Error):
            left = psutil.Process(pid)
            left.send_signal(signal.SIGINT)
            left.wait(30)
    shutil.rmtree(home, ignore_errors=True)


def key_of(home: Path) -> dict[str, str]:
    """The header of the administrator of a ledger in this home."""
    return {"Authorization": f"Bearer {(home / 'admin.key').read_text().strip()}"}


async def get(url: str, home: Path | None = None, **parameters: Any) -> Any:
    """Read what must be there; as the administrator of a home, where the API asks for a key."""
    headers = key_of(home) if home is not None else {}
    async with aiohttp.ClientSession(headers=headers) as client, client.get(url, params=parameters) as answer:
        body = await answer.json(content_type=None)
        assert answer.status == 200, body
        return body
