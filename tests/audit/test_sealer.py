"""Sealer: seals within two seconds, is idle without new events, and never signs two trees of one size."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import URL

from ledger.audit import sealer as sealing
from ledger.database import Database
from ledger.log.notifications import LogSignal
from ledger.runtime import background
from tests.audit import naive
from tests.audit.sealing import (
    ORIGIN,
    RecordingFiles,
    cancel,
    entries_of,
    fill,
    open_database,
    sealer_of,
    served,
    without_triggers,
)
from tests.audit.tlog_client import Head, TileClient, open_checkpoint
from tests.events import cost
from tests.log.helpers import query, record, until, value

SECONDS_TO_SEAL = 2.0
"""The promised maximum."""

LOSE_CONNECTION = "SELECT pg_terminate_backend(pg_backend_pid()), $1::int8, $2::bytea, $3::text, $4::text, $5::bytea"


def heads(*signing_files: RecordingFiles) -> list[Head]:
    """Return every checkpoint that was written, its signature verified."""
    return [
        open_checkpoint(note, signer.verifier.text)
        for files in signing_files
        if (signer := files.read_signer()) is not None
        for note in files.notes
    ]


@pytest.fixture
def files(tmp_path: Path) -> RecordingFiles:
    return RecordingFiles(tmp_path)


async def test_every_checkpoint_covers_all_events_before_it(database: Database, files: RecordingFiles) -> None:
    sealer = await sealer_of(database, files)
    counts = []
    for count in (0, 1, 4, 300):
        await record(database, *(cost() for _ in range(count)))
        counts.append(await sealer.seal())

    leaves = naive.leaf_hashes(await entries_of(database))
    assert counts == [0, 1, 4, 300]
    assert heads(files) == [Head(ORIGIN, size, naive.root(leaves[:size])) for size in (0, 1, 5, 305)]
    assert files.checkpoint_file.read_bytes() == files.notes[-1]


async def test_nothing_is_written_without_new_events(database: Database, files: RecordingFiles) -> None:
    await fill(database, 3)
    sealer = await sealer_of(database, files)
    await sealer.seal()
    row = "SELECT xmin::text, sealed_at FROM ledger.log_checkpoint"
    before = await query(database, row)

    again = [await sealer.seal() for _ in range(3)]

    assert (again, len(files.notes)) == ([0, 0, 0], 1)
    assert await query(database, row) == before


async def test_an_idle_sealer_checks_at_growing_intervals(
    database: Database, files: RecordingFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    class SilentSignal(LogSignal):
        async def wait(self, seen: int, seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 12:
                await asyncio.Event().wait()

    async def no_sleep(seconds: float) -> None:
        assert seconds <= sealing.SEAL_SECONDS

    sealer = await sealer_of(database, files)
    await sealer.seal()
    monkeypatch.setattr(sealing.asyncio, "sleep", no_sleep)
    signal = SilentSignal()
    signal.receives_notifications = True
    task = asyncio.create_task(sealer.run(signal))

    async with asyncio.timeout(10):
        while len(waits) < 12:
            await asyncio.wait([task], timeout=0.01)
    await cancel(task)

    assert waits == [*(2.0**doubled - 1 for doubled in range(1, 10)), 599, 599, 599]


@pytest.fixture(params=["in one process", "beside the API"])
async def running(request: Any, database: Database, database_url: URL, files: RecordingFiles) -> AsyncIterator[Any]:
    """A client of a service that seals, with the sealer in the process of the API or in another one."""
    if request.param == "in one process":
        async with served(database, await sealer_of(database, files)) as client:
            yield client
        return
    async with (
        open_database(database_url) as other,
        background(other, with_worker=False, sealer=await sealer_of(other, files)),
        served(database) as client,
    ):
        yield client


async def test_an_event_is_sealed_within_two_seconds(running: Any, files: RecordingFiles) -> None:
    durations = []
    for pause in (0.0, 1.5, 0.0, 0.3):
        await asyncio.sleep(pause)
        async with running.post("/v1/events", json=cost()) as answer:
            position = (await answer.json())["position"]
        started = time.monotonic()

        async def is_sealed(position: int = position) -> bool:
            async with running.get("/v1/log/proof/inclusion", params={"position": str(position)}) as answer:
                return bool(answer.status == 200)

        await until(is_sealed)
        durations.append(time.monotonic() - started)

    assert max(durations) < SECONDS_TO_SEAL
    log = TileClient(running)
    assert len(await log.walk(await log.head(), tuple(heads(files)))) == 4


@pytest.mark.parametrize("folders", ["one folder", "two folders with one key"])
async def test_two_sealers_at_once_never_sign_two_trees_of_one_size(
    database: Database, database_url: URL, tmp_path: Path, folders: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "SEAL_EVENTS_MAX", 7)
    one = RecordingFiles(tmp_path / "one")
    first = await sealer_of(database, one)
    two = one
    if folders != "one folder":
        two = RecordingFiles(tmp_path / "two")
        two.key_file.parent.mkdir()
        two.key_file.write_bytes(one.key_file.read_bytes())

    async def keep_sealing(sealer: sealing.Sealer) -> None:
        while True:
            await sealer.seal()

    async with open_database(database_url) as other:
        second = await sealer_of(other, two)
        sealers = [asyncio.create_task(keep_sealing(each)) for each in (first, second, first, second)]
        for number in range(60):
            await record(database, *(cost() for _ in range(1 + number % 9)))
        total = sum(1 + number % 9 for number in range(60))
        await until(lambda: is_sealed(database, total))
        await asyncio.wait(sealers, timeout=0)
        assert not any(task.done() for task in sealers)
        await cancel(*sealers)

    leaves = naive.leaf_hashes(await entries_of(database))
    signed = heads(one) if two is one else heads(one, two)
    assert max(head.size for head in signed) == total
    assert len({head.size for head in signed}) > 20
    assert all(head.root == naive.root(leaves[: head.size]) for head in signed)
    assert all(files.notes for files in (one, two))


async def is_sealed(database: Database, size: int) -> bool:
    return bool(await value(database, "SELECT size = $1 FROM ledger.log_checkpoint", size))


async def test_a_long_log_is_signed_in_steps(
    database: Database, files: RecordingFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "SEAL_EVENTS_MAX", 1_000)
    monkeypatch.setattr(sealing, "CHUNK_EVENTS", 300)
    await fill(database, 2_100)
    sealer = await sealer_of(database, files)

    counts = [await sealer.seal() for _ in range(4)]

    leaves = naive.leaf_hashes(await entries_of(database))
    assert counts == [1_000, 1_000, 100, 0]
    assert heads(files) == [Head(ORIGIN, size, naive.root(leaves[:size])) for size in (1_000, 2_000, 2_100)]


async def test_nothing_of_a_long_log_with_a_gap_is_sealed(
    database: Database, files: RecordingFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "CHUNK_EVENTS", 300)
    await fill(database, 2_100)
    async with without_triggers(database) as connection:
        await connection.execute("DELETE FROM ledger.events WHERE position = 1000")
    sealer = await sealer_of(database, files)

    with pytest.raises(sealing.RollbackError, match="positions 901 to 1200 should hold 300 events, but hold 299"):
        await sealer.seal()

    assert await query(database, "SELECT size, (SELECT count(*) FROM ledger.log_tiles) FROM ledger.log_checkpoint") == [
        (0, 0)
    ]
    # The parallel readers have returned their connections.
    assert database.connections_in_use == 0


async def test_a_lost_checkpoint_file_is_written_again_without_new_events(
    database: Database, files: RecordingFiles
) -> None:
    await fill(database, 5)
    sealer = await sealer_of(database, files)
    await sealer.seal()
    files.checkpoint_file.unlink()

    again = await sealer.seal()

    assert again == 0
    assert files.checkpoint_file.read_bytes() == files.notes[0]


async def test_a_crash_between_write_and_rename_leaves_the_old_checkpoint(
    database: Database, files: RecordingFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(database, 5)
    sealer = await sealer_of(database, files)
    await sealer.seal()
    before = files.checkpoint_file.read_bytes()
    await fill(database, 5)

    class PowerFailure(Exception):
        pass

    def fail(*_: object) -> None:
        raise PowerFailure

    with monkeypatch.context() as patch, pytest.raises(PowerFailure):
        patch.setattr(Path, "replace", fail)
        await sealer.seal()
    (new,) = files.checkpoint_file.parent.glob("checkpoint.*.new")
    left_over = new.read_bytes()
    after_failure = files.checkpoint_file.read_bytes()
    size_after_failure = await value(database, "SELECT size FROM ledger.log_checkpoint")
    new.write_bytes(b"half a no")
    await sealer.seal()

    assert (after_failure, size_after_failure) == (before, 5)
    assert left_over.splitlines()[1] == b"10"
    assert files.checkpoint_file.read_bytes() == left_over
    assert files.origin == ORIGIN


async def test_a_checkpoint_file_is_written_before_the_database_commits(
    database: Database, files: RecordingFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(database, 5)
    sealer = await sealer_of(database, files)
    with monkeypatch.context() as patch:
        patch.setattr(sealing.tree_store, "STORE_SEAL", LOSE_CONNECTION)
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
            await sealer.seal()
    written = files.checkpoint_file.read_bytes()
    sealed_size = await value(database, "SELECT size FROM ledger.log_checkpoint")

    count = await sealer.seal()

    assert (sealed_size, count) == (0, 5)
    assert files.notes == [written, written]
