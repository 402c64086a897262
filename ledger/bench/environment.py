"""The environment of a benchmark run: temporary server, template databases, clones, API and worker."""

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
from sqlalchemy import URL

from ledger.bench import prepared_data
from ledger.bench.processes import Child, child
from ledger.bench.sizes import Sizes
from ledger.database import Connection, Database
from ledger.database.engine import connect_arguments
from ledger.database.migrations import migrate
from ledger.domain.access import Role
from ledger.embedded import installed_binaries
from ledger.keys import create_key
from ledger.log.read import read_head

EMPTY_TEMPLATE = "template_empty"

RATE_LIMIT = "1000000/second"
"""More than any client sends: what is measured is the service, not the limit."""


class Environment:
    """The server, databases and processes that every figure is measured with."""

    def __init__(
        self, server_url: URL, postmaster_pid: int, folder: Path, sizes: Sizes, show_step: Callable[[str], None]
    ) -> None:
        """Describe the environment; nothing is started yet.

        Args:
            server_url: of any database of the server; others are created beside it.
            postmaster_pid: process id of the server.
            folder: for log files and scripts.
            sizes: of the run.
            show_step: called with one line about each step before it begins.
        """
        self.server_url = server_url
        self.postmaster_pid = postmaster_pid
        self.folder = folder
        self.sizes = sizes
        self.show_step = show_step
        self.binaries = installed_binaries()
        self.peaks_mb: dict[str, float] = {}
        self._templates: set[str] = set()
        self._clone_numbers = itertools.count(1)

    async def execute(self, statement: str) -> None:
        """Run a statement that PostgreSQL does not allow inside a transaction, such as CREATE DATABASE."""
        async with self.connection(self.server_url) as connection:
            await connection.execute(statement)

    @asynccontextmanager
    async def connection(self, url: URL) -> AsyncIterator[Connection]:
        """Open a connection outside any pool; it is closed on leaving."""
        plain, arguments = connect_arguments(url)
        connection = await asyncpg.connect(
            host=plain.host,
            port=plain.port,
            user=plain.username,
            password=plain.password,
            database=plain.database,
            **arguments,
        )
        try:
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def open_database(self, url: URL) -> AsyncIterator[Database]:
        """Open a database as the service does; it is closed on leaving."""
        database = Database(url)
        try:
            yield database
        finally:
            await database.close()

    @asynccontextmanager
    async def cloned_database(self, template: str) -> AsyncIterator[URL]:
        """Yield the URL of a clone of a template database; it is dropped on leaving."""
        name = f"bench_{next(self._clone_numbers)}"
        await self._clone(template, name)
        try:
            yield self.server_url.set(database=name)
        finally:
            await self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    async def _clone(self, template: str, name: str) -> None:
        # Copied as files: written through the WAL, the default strategy, large databases would take minutes.
        await self.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")

    async def empty_template(self) -> str:
        """Return the name of a migrated database with the campaigns and jobs of the workload, folded."""
        if EMPTY_TEMPLATE not in self._templates:
            self.show_step("preparing campaigns and jobs")
            await self.execute(f"CREATE DATABASE {EMPTY_TEMPLATE}")
            async with self.open_database(self.server_url.set(database=EMPTY_TEMPLATE)) as database:
                await migrate(database)
                await prepared_data.add_campaigns_and_jobs(database)
                await prepared_data.fold_all(database)
            self._templates.add(EMPTY_TEMPLATE)
        return EMPTY_TEMPLATE

    async def log_template(self, events: int, kind: str, *, folded: bool) -> str:
        """Return the name of a database like the empty template, with a longer log.

        Args:
            events: how many more events the log has.
            kind: `trace`, the mix of jobs and costs; or `costs`.
            folded: whether the worker has folded them into the read models.

        Returns:
            the name of the database, which must not be changed.
        """
        name = f"template_{kind}_{events}"
        if name not in self._templates:
            self.show_step(f"preparing a log of {events:,} events ({kind})")
            await self._clone(await self.empty_template(), name)
            async with self.open_database(self.server_url.set(database=name)) as database:
                await prepared_data.add_events(database, kind, events)
            async with self.connection(self.server_url.set(database=name)) as connection:
                await connection.execute("VACUUM ANALYZE")
            self._templates.add(name)
        return await self._folded_template(name, events) if folded else name

    async def _folded_template(self, log_template: str, events: int) -> str:
        name = f"{log_template}_folded"
        if name not in self._templates:
            self.show_step(f"preparing the read models of {events:,} events")
            url = self.server_url.set(database=name)
            await self._clone(log_template, name)
            async with self.worker(url), self.connection(url) as connection:
                await prepared_data.wait_until_folded(connection)
                await connection.execute("VACUUM ANALYZE")
            self._templates.add(name)
        return name

    @asynccontextmanager
    async def api(self, url: URL, *, with_keys: bool = False) -> AsyncIterator[Child]:
        """Run the API as a separate process, `ledger serve`; `with_keys`: every request needs a key."""
        options = () if with_keys else ("--no-auth",)
        async with child(url, self.folder, "serve", "--port", "0", *options, LEDGER_RATE_LIMIT=RATE_LIMIT) as process:
            yield process
            self._record_peak("API", process)

    async def create_key(self, url: URL, name: str, role: Role) -> str:
        """Create an API key in a database and return it."""
        async with self.connection(url) as connection:
            _, key = await create_key(connection, name, role)
        return key

    @asynccontextmanager
    async def worker(self, url: URL) -> AsyncIterator[Child]:
        """Run the worker as a separate process, `ledger worker`."""
        async with child(url, self.folder, "worker") as process:
            yield process
            self._record_peak("worker", process)

    def _record_peak(self, name: str, process: Child) -> None:
        self.peaks_mb[name] = max(self.peaks_mb.get(name, 0.0), process.peak_mb())

    async def head_position(self, url: URL) -> int:
        """Return the position of the last event in the log."""
        async with self.connection(url) as connection:
            return await read_head(connection)
