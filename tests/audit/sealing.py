"""Sealers, events to seal, and ways to harm a log that only a superuser has."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

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

if TYPE_CHECKING:
    pass

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
    """Keeps every checkpoint that was ever written; pauses before each, so that others may come between."""

    def __init__(self, folder: Path, origin: str = ORIGIN) -> None:
        super().__init__(folder, None, origin)
        self.notes: list[bytes] = []

    def write_checkpoint(self, note: bytes) -> None:
        super().write_checkpoint(note)
        self.notes.append(note)


async def sealer_of(database: Database, home: SigningFiles) -> Sealer:
    """A sealer that must be there; its key is made where there is none."""
    sealer = await find_sealer(database, home, make_key=True)
    assert sealer is not None
    return sealer


async def fill(database: Database, count: int) -> None:
    """Events by the thousand, as appends would leave them."""
    async with database.connection() as connection, connection.transaction():
        await connection.execute(FILL, count)
        await connection.execute(MOVE_HEAD, count)


async def entries_of(database: Database) -> list[bytes]:
    """The entries of all events, written by Python."""
    return [encode_entry(event) async for page in read_all(database, EventFilter()) for event in page]


@asynccontextmanager
async def served(database: Database, sealer: Sealer | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    """The API on this database; tests seal by themselves unless a sealer is given."""
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    async with (
        serving(database, listener, with_worker=False, sealer=sealer),
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
    ):
        yield client


@asynccontextmanager
async def unguarded(database: Database) -> "AsyncIterator[Connection]":
    """A transaction in which no trigger watches over the log."""
    async with database.connection() as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        yield connection


async def lose_tail(database: Database, kept: int) -> None:
    """Delete what comes after a position."""
    async with unguarded(database) as connection:
        await connection.execute("DELETE FROM ledger.events WHERE position > $1", kept)
        await connection.execute("UPDATE ledger.log_head SET position = $1", kept)


@asynccontextmanager
async def copied(url: URL) -> AsyncIterator[URL]:
    """A copy of a database as it is now, to be had again later: a cheap dump. Nobody may be connected."""
    name = f"copy_{uuid.uuid4().hex[:12]}"
    await clone(url, url.set(database=name))
    yield url.set(database=name)
    await administer(url.set(database="postgres"), f"DROP DATABASE {name} WITH (FORCE)")


async def clone(source: URL, target: URL) -> None:
    """Make a database a copy of another, whatever it was; who is connected to either is thrown out."""
    postgres = source.set(database="postgres")
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'"
    await administer(postgres, ended.format(source.database))
    await administer(postgres, f"DROP DATABASE IF EXISTS {target.database} WITH (FORCE)")
    await administer(postgres, f"CREATE DATABASE {target.database} TEMPLATE {source.database}")


@asynccontextmanager
async def open_database(url: URL) -> AsyncIterator[Database]:
    """An database of its own."""
    database = Database(url)
    try:
        yield database
    finally:
        await database.close()


async def get_json(client: aiohttp.ClientSession, path: str, **parameters: Any) -> tuple[int, Any]:
    """Status and JSON of an answer."""
    async with client.get(path, params={name: str(value) for name, value in parameters.items()}) as answer:
        return answer.status, await answer.json(content_type=None)


async def ended(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks and wait until they are gone."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


REFUSAL = "SELECT refusal FROM ledger.log_checkpoint"


class SealedLog(NamedTuple):
    """A log of 300 events that is sealed, and its files."""

    database: Database
    home: RecordingFiles

    async def seal(self) -> int:
        return await (await sealer_of(self.database, self.home)).seal()

    async def refusal(self) -> str:
        """The sealer refuses, signs nothing, and says why, also to others."""
        signed = len(self.home.notes)
        with pytest.raises(RollbackError) as raised:
            await self.seal()
        assert len(self.home.notes) == signed
        assert await value(self.database, REFUSAL) == str(raised.value)
        return str(raised.value)

    async def accept(self) -> Any:
        async with Appender(self.database) as appender:
            return await accept_rollback(self.database, appender, self.home, by="ann", reason="the disk was lost")


async def sealed_log(database: Database, folder: Path) -> SealedLog:
    """Make one."""
    log = SealedLog(database, RecordingFiles(folder))
    await fill(database, 300)
    await log.seal()
    return log
