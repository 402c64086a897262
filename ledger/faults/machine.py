"""What is struck: PostgreSQL, two API processes and two workers, as processes of their own in a folder thrown away."""

import asyncio
import multiprocessing
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import psutil
from sqlalchemy import make_url

from ledger.config import parse_url
from ledger.database import Connection, Database
from ledger.database.migrations import migrate
from ledger.domain.access import Role
from ledger.embedded import EmbeddedServer
from ledger.embedded.postmaster import living_postmaster
from ledger.faults import disk
from ledger.faults.disk import Disk
from ledger.faults.program import Given, serve_api, signing_files, work
from ledger.faults.proxy import Proxy
from ledger.keys import create_key

if TYPE_CHECKING:
    Connection = Connection

APIS = 2
WORKERS = 2
START_SECONDS_MAX = 60.0
DIE_SECONDS_MAX = 60.0


class Process:
    """A process of the service, which is killed and started again."""

    def __init__(self, program: Callable[..., None], given: Given) -> None:
        self.given = given
        self.port = 0
        self._program = program
        self._running: ForkServerProcess | None = None

    async def start(self) -> None:
        """Start it and wait until it is at work. Forked from one that has imported everything, it is so at once."""
        forking = multiprocessing.get_context("forkserver")
        forking.set_forkserver_preload([serve_api.__module__])
        here, there = forking.Pipe(duplex=False)
        process = forking.Process(target=self._program, args=(self.given, there), daemon=True)
        await asyncio.to_thread(process.start)
        self._running = process
        there.close()
        with here:
            if not await asyncio.to_thread(here.poll, START_SECONDS_MAX):
                raise TimeoutError(f"a process did not start; see {self.given.log}")
            self.port = here.recv()

    @property
    def is_alive(self) -> bool:
        return self._running is not None and self._running.is_alive()

    async def kill(self) -> None:
        """SIGKILL."""
        if self._running is not None:
            self._running.kill()
            await asyncio.to_thread(self._running.join)


class Machine:
    """PostgreSQL and the processes of one ledger. `key` is an administrator's."""

    server: EmbeddedServer
    proxy: Proxy
    key: str

    def __init__(self, folder: Path, logs: Path) -> None:
        self.home = folder / "home"
        self.no_disk = disk.why_not()
        self.disk: Disk | None = None
        self.apis: list[Process] = []
        self.workers: list[Process] = []
        self._folder = folder
        self._logs = logs

    @property
    def processes(self) -> list[Process]:
        return [*self.apis, *self.workers]

    @property
    def urls(self) -> list[str]:
        """Where the API processes are now."""
        return [f"http://127.0.0.1:{api.port}" for api in self.apis]

    async def set_up(self) -> None:
        """Make the database, a key of each kind, and start everything."""
        if self.no_disk is None:
            try:
                self.disk = await asyncio.to_thread(Disk, self.home)
            except subprocess.CalledProcessError as error:
                self.no_disk = f"a tmpfs cannot be mounted: {error.stderr.decode().strip()}"
        self.server = await asyncio.to_thread(EmbeddedServer.acquire, self.home)
        async with self.opened() as database:
            await migrate(database)
        async with self.connection() as connection:
            _, self.key = await create_key(connection, "clients", Role.ADMIN)
        signing_files(self.home).make_signer()
        through_proxy = make_url(self.server.url).set(port=self.proxy.port).render_as_string(hide_password=False)
        for program, name, number in ((serve_api, "api", APIS), (work, "worker", WORKERS)):
            for index in range(number):
                clock = self._folder / f"{name}-{index}.clock"
                clock.write_text("0")
                given = Given(through_proxy, self.home, self._logs / f"{name}-{index}.log", clock)
                (self.apis if program is serve_api else self.workers).append(Process(program, given))
        for process in self.processes:
            await process.start()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection past the proxy, for whoever checks."""
        connection = await asyncpg.connect(self.server.url)
        try:
            yield connection
        finally:
            await connection.close(timeout=10)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Database]:
        """An database past the proxy, for whoever checks."""
        database = Database(parse_url("DATABASE_URL", self.server.url), pool_size=3)
        try:
            yield database
        finally:
            await database.close()

    @property
    def data(self) -> Path:
        """PostgreSQL's data folder."""
        return self.home / "postgres" / "data"

    def postmaster(self) -> psutil.Process | None:
        """PostgreSQL's first process, where there is one."""
        living = living_postmaster(self.data.resolve())
        return psutil.Process(living.pid) if living else None

    async def postgres_died(self) -> None:
        """Wait until PostgreSQL's first process is gone, or only waits to be buried."""
        async with asyncio.timeout(DIE_SECONDS_MAX):
            while self.postmaster() is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def recover(self) -> None:
        """Start again what does not run, as whoever watches over processes does."""
        if self.postmaster() is None:
            before = self.server
            self.server = await asyncio.to_thread(EmbeddedServer.acquire, self.home)
            # Only now: the last user who leaves would stop it.
            await asyncio.to_thread(before.release)
        await asyncio.gather(*(process.start() for process in self.processes if not process.is_alive))

    async def tear_down(self) -> None:
        """End everything, and leave nothing behind, whatever else fails."""
        async with AsyncExitStack() as last:
            if self.disk is not None:
                last.callback(self.disk.unmount)
            if hasattr(self, "server"):
                last.push_async_callback(asyncio.to_thread, self.server.release)
                last.callback(self._kill_postgres)
            for process in self.processes:
                last.push_async_callback(process.kill)

    def _kill_postgres(self) -> None:
        """Nobody wants its data any more; it may also be one that was just starting when we were interrupted."""
        if postmaster := self.postmaster():
            kill_all([postmaster, *postmaster.children(recursive=True)])


def kill_all(processes: "list[psutil.Process]") -> None:
    """SIGKILL to all of them; some may die of the others' death."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


@asynccontextmanager
async def running_machine(logs: Path | None = None) -> AsyncIterator[Machine]:
    """A machine at work while inside.

    Args:
        logs: an existing folder for the processes' logs; thrown away when None.
    """
    folder = Path(tempfile.mkdtemp(prefix="ledger-faults-"))
    machine = Machine(folder, logs or folder)
    try:
        async with Proxy(lambda: make_url(machine.server.url).port or 0) as machine.proxy:
            try:
                await machine.set_up()
                yield machine
            finally:
                await machine.tear_down()
    finally:
        remove: Any = shutil.rmtree
        await asyncio.to_thread(remove, folder)
