"""The throw-away server and what stands on it: databases cloned from prepared ones, and the service's processes."""

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
from sqlalchemy import URL

from ledger.bench import data
from ledger.bench.plan import Plan
from ledger.bench.processes import Child, child
from ledger.database import Connection, Database
from ledger.database.engine import connect_arguments
from ledger.database.migrations import migrate
from ledger.embedded import installed_binaries

if TYPE_CHECKING:
    Connection = Connection

EMPTY = "template_empty"


class Stage:
    """What every figure works with."""

    def __init__(
        self, server_url: URL, postmaster_pid: int, folder: Path, plan: Plan, say: Callable[[str], None]
    ) -> None:
        """Make one; nothing is started yet.

        Args:
            server_url: of a database of the server; others are made beside it.
            folder: for logs and scripts.
            say: told what is being done, in a line.
        """
        self.server_url = server_url
        self.postmaster_pid = postmaster_pid
        self.folder = folder
        self.plan = plan
        self.say = say
        self.binaries = installed_binaries()
        self.peaks_mb: dict[str, float] = {}
        self._prepared: set[str] = set()
        self._numbers = itertools.count(1)

    async def administer(self, statement: str) -> None:
        """Run a statement that no transaction may hold."""
        connection = await self._connect(self.server_url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def _connect(self, url: URL) -> Connection:
        plain, arguments = connect_arguments(url)
        return await asyncpg.connect(
            host=plain.host,
            port=plain.port,
            user=plain.username,
            password=plain.password,
            database=plain.database,
            **arguments,
        )

    @asynccontextmanager
    async def connection(self, url: URL) -> AsyncIterator[Connection]:
        """A connection of one's own."""
        connection = await self._connect(url)
        try:
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def opened(self, url: URL) -> AsyncIterator[Database]:
        """An database as the service has it."""
        database = Database(url)
        try:
            yield database
        finally:
            await database.close()

    @asynccontextmanager
    async def database(self, template: str) -> AsyncIterator[URL]:
        """A database like a prepared one, dropped in the end."""
        name = f"bench_{next(self._numbers)}"
        # Copied as files: through the log of writes, large ones would take minutes.
        await self.administer(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        try:
            yield self.server_url.set(database=name)
        finally:
            await self.administer(f"DROP DATABASE {name} WITH (FORCE)")

    async def empty(self) -> str:
        """A prepared database: migrated, with the campaigns and jobs that the load refers to, folded."""
        if EMPTY not in self._prepared:
            self.say("preparing: campaigns and jobs")
            await self.administer(f"CREATE DATABASE {EMPTY}")
            async with self.opened(self.server_url.set(database=EMPTY)) as database:
                await migrate(database)
                await data.add_campaigns_and_jobs(database)
                await data.fold_all(database)
            self._prepared.add(EMPTY)
        return EMPTY

    async def log(self, events: int, kind: str, *, folded: bool) -> str:
        """A prepared database whose log has so many events more: of the trace's mix (`trace`), or `costs`.

        Args:
            folded: with the read models at the log's end, kept there by the worker.
        """
        name = f"template_{kind}_{events}"
        if name not in self._prepared:
            self.say(f"preparing: a log of {events:,} events ({kind})")
            await self.administer(f"CREATE DATABASE {name} TEMPLATE {await self.empty()} STRATEGY file_copy")
            async with self.opened(self.server_url.set(database=name)) as database:
                await data.add_events(database, kind, events)
            async with self.connection(self.server_url.set(database=name)) as connection:
                await connection.execute("VACUUM ANALYZE")
            self._prepared.add(name)
        if not folded:
            return name
        folded_name = f"{name}_folded"
        if folded_name not in self._prepared:
            self.say(f"preparing: its read models ({events:,} events)")
            url = self.server_url.set(database=folded_name)
            await self.administer(f"CREATE DATABASE {folded_name} TEMPLATE {name} STRATEGY file_copy")
            async with self.worker(url), self.connection(url) as connection:
                await data.until_folded(connection)
                await connection.execute("VACUUM ANALYZE")
            self._prepared.add(folded_name)
        return folded_name

    @asynccontextmanager
    async def api(self, url: URL) -> AsyncIterator[Child]:
        """The API as a process of its own, `ledger serve --no-auth`."""
        async with child(url, self.folder, "serve", "--no-auth", "--port", "0") as started:
            yield started
            self._note_peak("API", started)

    @asynccontextmanager
    async def worker(self, url: URL) -> AsyncIterator[Child]:
        """The worker as a process of its own, `ledger worker`."""
        async with child(url, self.folder, "worker") as started:
            yield started
            self._note_peak("worker", started)

    def _note_peak(self, what: str, started: Child) -> None:
        self.peaks_mb[what] = max(self.peaks_mb.get(what, 0.0), started.peak_mb())

    async def position(self, url: URL) -> int:
        """The log's end."""
        async with self.connection(url) as connection:
            return int(await connection.fetchval("SELECT position FROM ledger.log_head"))
