"""The system under test: PostgreSQL, some API processes and two workers in a temporary folder."""

import asyncio
import multiprocessing
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import asyncpg
import psutil
from sqlalchemy import make_url

from ledger.bench.faults import disk
from ledger.bench.faults.disk import Disk
from ledger.bench.faults.entry_points import ProcessSettings, run_api, run_worker, signing_files
from ledger.bench.faults.proxy import Proxy
from ledger.config import parse_url
from ledger.database import Connection, Database
from ledger.database.migrations import migrate
from ledger.domain.access import Role
from ledger.embedded import EmbeddedServer
from ledger.embedded.postmaster import running_postmaster
from ledger.keys import create_key

WORKER_COUNT = 2
START_SECONDS_MAX = 60.0
DIE_SECONDS_MAX = 60.0


class ServiceProcess:
    """A process of the service, which is killed and started again."""

    def __init__(self, entry_point: Callable[..., None], settings: ProcessSettings) -> None:
        self.settings = settings
        self.port = 0
        self._entry_point = entry_point
        self._process: ForkServerProcess | None = None

    async def start(self) -> None:
        """Start the process and wait until it is ready.

        It is forked from a process that has imported everything, and so starts in milliseconds.

        Raises:
            TimeoutError: it is not ready after START_SECONDS_MAX.
        """
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([run_api.__module__])
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=self._entry_point, args=(self.settings, sender), daemon=True)
        await asyncio.to_thread(process.start)
        self._process = process
        sender.close()
        with receiver:
            if not await asyncio.to_thread(receiver.poll, START_SECONDS_MAX):
                raise TimeoutError(f"a process did not start within {START_SECONDS_MAX:.0f} s; see {self.settings.log}")
            self.port = receiver.recv()

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.is_alive()

    async def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.join)


class SystemUnderTest:
    """PostgreSQL behind a proxy, and the processes of one ledger. `key` is the key of an administrator."""

    server: EmbeddedServer
    proxy: Proxy
    key: str

    def __init__(self, folder: Path, logs: Path, api_count: int) -> None:
        self.home = folder / "home"
        self.disk_unavailable = disk.reason_unavailable()
        self.disk: Disk | None = None
        self.apis: list[ServiceProcess] = []
        self.workers: list[ServiceProcess] = []
        self._folder = folder
        self._logs = logs
        self._api_count = api_count

    @property
    def processes(self) -> list[ServiceProcess]:
        return [*self.apis, *self.workers]

    @property
    def urls(self) -> list[str]:
        """The base URLs of the API processes at the moment."""
        return [f"http://127.0.0.1:{api.port}" for api in self.apis]

    async def set_up(self) -> None:
        """Mount the disk if possible, create the database, the keys, and start all processes."""
        if self.disk_unavailable is None:
            try:
                self.disk = await asyncio.to_thread(Disk, self.home)
            except subprocess.CalledProcessError as error:
                self.disk_unavailable = f"a tmpfs cannot be mounted: {error.stderr.decode().strip()}"
        self.server = await asyncio.to_thread(EmbeddedServer.acquire, self.home)
        async with self.open_database() as database:
            await migrate(database)
        async with self.connection() as connection:
            _, self.key = await create_key(connection, "clients", Role.ADMIN)
        signing_files(self.home).make_signer()
        self.apis = [ServiceProcess(run_api, self._settings(f"api-{index}")) for index in range(self._api_count)]
        self.workers = [ServiceProcess(run_worker, self._settings(f"worker-{index}")) for index in range(WORKER_COUNT)]
        for process in self.processes:
            await process.start()

    def _settings(self, name: str) -> ProcessSettings:
        through_proxy = make_url(self.server.url).set(port=self.proxy.port).render_as_string(hide_password=False)
        clock = self._folder / f"{name}.clock"
        clock.write_text("0")
        return ProcessSettings(through_proxy, self.home, self._logs / f"{name}.log", clock)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Open a connection that bypasses the proxy, for checks."""
        connection = await asyncpg.connect(self.server.url)
        try:
            yield connection
        finally:
            await connection.close(timeout=10)

    @asynccontextmanager
    async def open_database(self) -> AsyncIterator[Database]:
        """Open a database that bypasses the proxy, for checks."""
        database = Database(parse_url("DATABASE_URL", self.server.url), pool_size=3)
        try:
            yield database
        finally:
            await database.close()

    @property
    def data_folder(self) -> Path:
        """PostgreSQL's data folder."""
        return self.home / "postgres" / "data"

    def postmaster(self) -> psutil.Process | None:
        """Return PostgreSQL's main process, or None if it does not run."""
        living = running_postmaster(self.data_folder.resolve())
        return psutil.Process(living.pid) if living else None

    async def wait_until_postgres_died(self) -> None:
        """Wait until PostgreSQL's main process has ended; a zombie counts as ended.

        Raises:
            TimeoutError: it still runs after DIE_SECONDS_MAX.
        """
        async with asyncio.timeout(DIE_SECONDS_MAX):
            while self.postmaster() is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def recover(self) -> None:
        """Start every process that does not run, as a process supervisor does."""
        if self.postmaster() is None:
            previous = self.server
            self.server = await asyncio.to_thread(EmbeddedServer.acquire, self.home)
            # Only now: releasing the last reference would stop the server.
            await asyncio.to_thread(previous.release)
        await asyncio.gather(*(process.start() for process in self.processes if not process.is_alive))

    async def tear_down(self) -> None:
        """Stop all processes and unmount the disk; each step runs even if another fails."""
        async with AsyncExitStack() as stack:
            if self.disk is not None:
                stack.callback(self.disk.unmount)
            if hasattr(self, "server"):
                stack.push_async_callback(asyncio.to_thread, self.server.release)
                stack.callback(self._kill_postgres)
            for process in self.processes:
                stack.push_async_callback(process.kill)

    def _kill_postgres(self) -> None:
        """Kill PostgreSQL, whose data is no longer needed; it may still be starting if the run was interrupted."""
        if postmaster := self.postmaster():
            kill_all([postmaster, *postmaster.children(recursive=True)])


def kill_all(processes: list[psutil.Process]) -> None:
    """Send SIGKILL to all of them; some may have ended because others were killed."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


@asynccontextmanager
async def running_system(api_count: int, logs: Path | None = None) -> AsyncIterator[SystemUnderTest]:
    """Run a system under test.

    Args:
        api_count: the number of API processes.
        logs: an existing folder for the log files of the processes; if None, they are deleted with the system.
    """
    folder = Path(tempfile.mkdtemp(prefix="ledger-faults-"))
    system = SystemUnderTest(folder, logs or folder, api_count)
    try:
        async with Proxy(lambda: make_url(system.server.url).port or 0) as system.proxy:
            try:
                await system.set_up()
                yield system
            finally:
                await system.tear_down()
    finally:
        remove: Any = shutil.rmtree
        await asyncio.to_thread(remove, folder)
