"""Helpers: sealers, events to seal, and damage to a log that only a superuser can do."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from sqlalchemy import URL

from ledger.api.app import listen, serving
from ledger.audit.log_entry import encode_entry
from ledger.audit.rollback import accept_rollback
from ledger.audit.sealer import RollbackError, Sealer, find_sealer
from ledger.audit.signing_files import SigningFiles
from ledger.database import Connection, Database
from ledger.log.appender import Appender
from ledger.log.read import EventFilter, read_all
from tests.conftest import administer
from tests.log.helpers import value

ORIGIN = "ledger.example/log"

FILL = """
INSERT INTO ledger.events (
    position, category, stream_id, version, id, type, schema_version, occurred_at, recorded_at, actor, data, size
)
SELECT head.position + number, 'cost', id, 1, id, 'cost.recorded', 1, head.at, head.at, 'local', data::json,
    length(data)
FROM (SELECT position, greatest(recorded_at, now()) AS at FROM ledger.log_head) AS head,
    generate_series(1, $1) AS number,
    LATERAL md5(head.position + number || 'filled') AS hash, LATERAL (SELECT hash::uuid) AS made (id),
    LATERAL (SELECT '{"resource_type":"other","cost":"1","currency":"USD"}') AS written (data)
"""
MOVE_HEAD = "UPDATE ledger.log_head SET position = position + $1, recorded_at = greatest(recorded_at, now())"


class RecordingFiles(SigningFiles):
    """Signing files that also collect every checkpoint that was written, in `notes`."""

    def __init__(self, folder: Path, origin: str = ORIGIN) -> None:
        super().__init__(folder, None, origin)
        self.notes: list[bytes] = []

    def write_checkpoint(self, note: bytes) -> None:
        super().write_checkpoint(note)
        self.notes.append(note)


async def sealer_of(database: Database, files: SigningFiles) -> Sealer:
    """Return a sealer; its key is created if there is none."""
    sealer = await find_sealer(database, files, make_key=True)
    assert sealer is not None
    return sealer


async def fill(database: Database, count: int) -> None:
    """Insert many events, as appends would leave them."""
    async with database.connection() as connection, connection.transaction():
        await connection.execute(FILL, count)
        await connection.execute(MOVE_HEAD, count)


async def entries_of(database: Database) -> list[bytes]:
    """Return the entries of all events, encoded in Python."""
    return [encode_entry(event) async for page in read_all(database, EventFilter()) for event in page]


@asynccontextmanager
async def served(database: Database, sealer: Sealer | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    """Serve the API on this database and yield a client. Without `sealer`, nothing is sealed automatically."""
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    async with (
        serving(database, listener, with_worker=False, sealer=sealer),
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
    ):
        yield client


@asynccontextmanager
async def without_triggers(database: Database) -> AsyncIterator[Connection]:
    """Open a transaction in which the triggers that protect the log are disabled."""
    async with database.connection() as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        yield connection


async def delete_after(database: Database, position: int) -> None:
    """Delete the events after a position."""
    async with without_triggers(database) as connection:
        await connection.execute("DELETE FROM ledger.events WHERE position > $1", position)
        await connection.execute("UPDATE ledger.log_head SET position = $1", position)


@asynccontextmanager
async def copied(url: URL) -> AsyncIterator[URL]:
    """Copy a database as it is now: a fast dump to restore from. Nobody may be connected."""
    name = f"copy_{uuid.uuid4().hex[:12]}"
    await clone(url, url.set(database=name))
    yield url.set(database=name)
    await administer(url.set(database="postgres"), f"DROP DATABASE {name} WITH (FORCE)")


async def clone(source: URL, target: URL) -> None:
    """Replace the target database by a copy of the source; connections to either are terminated."""
    postgres = source.set(database="postgres")
    terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'"
    await administer(postgres, terminate.format(source.database))
    await administer(postgres, f"DROP DATABASE IF EXISTS {target.database} WITH (FORCE)")
    await administer(postgres, f"CREATE DATABASE {target.database} TEMPLATE {source.database}")


@asynccontextmanager
async def open_database(url: URL) -> AsyncIterator[Database]:
    """Open a separate `Database`, closed at the end."""
    database = Database(url)
    try:
        yield database
    finally:
        await database.close()


async def get_json(client: aiohttp.ClientSession, path: str, **parameters: Any) -> tuple[int, Any]:
    """Return the status and the JSON of a response."""
    async with client.get(path, params={name: str(value) for name, value in parameters.items()}) as answer:
        return answer.status, await answer.json(content_type=None)


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


REFUSAL = "SELECT refusal FROM ledger.log_checkpoint"


class SealedLog(NamedTuple):
    """A sealed log of 300 events, and its signing files."""

    database: Database
    files: RecordingFiles

    async def seal(self) -> int:
        return await (await sealer_of(self.database, self.files)).seal()

    async def refusal(self) -> str:
        """Require that the sealer refuses, signs nothing and stores its reason; return the reason."""
        signed = len(self.files.notes)
        with pytest.raises(RollbackError) as raised:
            await self.seal()
        assert len(self.files.notes) == signed
        assert await value(self.database, REFUSAL) == str(raised.value)
        return str(raised.value)

    async def accept(self) -> Any:
        async with Appender(self.database) as appender:
            return await accept_rollback(self.database, appender, self.files, by="ann", reason="the disk was lost")


async def sealed_log(database: Database, folder: Path) -> SealedLog:
    """Create a sealed log."""
    log = SealedLog(database, RecordingFiles(folder))
    await fill(database, 300)
    await log.seal()
    return log
