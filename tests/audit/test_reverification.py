"""Background re-verification: every sealed event is hashed again in turn, and a changed one is named."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from ledger.audit import reverification
from ledger.audit.reverification import Reverifier, read_reverification
from ledger.cli.doctor import examine_databases
from ledger.config import Settings
from ledger.database import Database
from tests.audit.sealing import (
    SealedLog,
    fill,
    get_json,
    open_database,
    sealed_log,
    sealer_of,
    served,
    without_triggers,
)
from tests.cli.helpers import ledger
from tests.log.helpers import query, value

HOURS = 24.0
CHUNK = 512
DUE = "UPDATE ledger.reverification SET next_at = NULL"


@pytest.fixture
async def log(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SealedLog:
    """A sealed log of 1,300 events, which takes three chunks."""
    monkeypatch.setattr(reverification, "CHUNK_EVENTS", CHUNK)
    log = await sealed_log(database, tmp_path / "home")
    await fill(database, 1_000)
    await log.seal()
    return log


async def step(database: Database, hours: float = HOURS) -> Any:
    """Let a new process hash the chunk that is next, as if it were due; return the progress."""
    await query(database, DUE)
    await Reverifier(database, hours).step()
    async with database.connection() as connection:
        return await read_reverification(connection)


async def damage(database: Database, *statements: str) -> None:
    async with without_triggers(database) as connection:
        for statement in statements:
            await connection.execute(statement)


async def test_a_pass_goes_through_the_whole_log_and_continues_after_each_restart(log: SealedLog) -> None:
    passed = [await step(log.database) for _ in range(4)]

    assert [progress.position for progress in passed] == [512, 1024, 1300, 512]
    assert [progress.last_full_pass_at is not None for progress in passed] == [False, False, True, True]
    assert [progress.problem() for progress in passed] == [None] * 4


async def test_chunks_are_spread_over_the_period_and_never_follow_at_once(log: SealedLog) -> None:
    await query(log.database, DUE)

    pauses = [await Reverifier(log.database, HOURS).step() for _ in range(2)]
    soonest = []
    for _ in range(3):
        await step(log.database, 0.0)
        soonest.append(await Reverifier(log.database, 0.0).step())

    day = HOURS * 3600
    assert pauses[0] == pytest.approx(day * 512 / 1300, rel=1e-3)
    assert pauses[1] == pytest.approx(pauses[0], abs=60), "the second call does nothing: the chunk is not due"
    assert all(0 < pause <= reverification.CHUNK_SECONDS_MIN for pause in soonest)


async def test_one_process_works_at_a_time(log: SealedLog) -> None:
    async with log.database.connection() as connection, connection.transaction():
        await connection.execute("SELECT FROM ledger.reverification FOR UPDATE")

        pause = await Reverifier(log.database, HOURS).step()

    assert pause == reverification.START_SECONDS
    assert await value(log.database, "SELECT position FROM ledger.reverification") == 0


async def test_new_events_join_the_pass_and_a_log_that_was_given_up_begins_anew(log: SealedLog) -> None:
    await step(log.database)
    await fill(log.database, 100)
    await log.seal()
    grown = [(await step(log.database)).position for _ in range(2)]
    await step(log.database)
    await query(log.database, "UPDATE ledger.log_checkpoint SET size = 300, root = sha256('')")
    shorter = await step(log.database)

    assert grown == [1024, 1400]
    assert shorter.changed_position == 300, "another root than the events give"


async def test_nothing_happens_while_nothing_is_sealed(database: Database) -> None:
    progress = await step(database)

    assert (progress.position, progress.last_full_pass_at, progress.problem()) == (0, None, None)


CHANGES = [
    (["UPDATE ledger.events SET actor = 'me' WHERE position = 700"], 700, "the event at position 700 differs from the"),
    (["DELETE FROM ledger.events WHERE position = 513"], 513, "the event at position 513 was sealed, but is missing"),
    (["DELETE FROM ledger.log_tiles WHERE level = 0 AND index = 3"], 769, "the event at position 769 differs from the"),
    (
        ["UPDATE ledger.log_tiles SET hashes = set_byte(hashes, 70, 255 - get_byte(hashes, 70)) WHERE level = 1"],
        513,
        "one of the events 513 to 768, or the tree over them, differs from the seal",
    ),
]


@pytest.mark.parametrize(("statements", "position", "description"), CHANGES)
async def test_a_change_is_named_until_it_is_undone(
    log: SealedLog, statements: list[str], position: int, description: str, caplog: pytest.LogCaptureFixture
) -> None:
    await step(log.database)
    await query(log.database, "CREATE TABLE public.kept AS SELECT * FROM ledger.events")
    await query(log.database, "CREATE TABLE public.kept_tiles AS SELECT * FROM ledger.log_tiles")
    await damage(log.database, *statements)

    found = [await step(log.database) for _ in range(2)]
    await damage(
        log.database,
        "DELETE FROM ledger.log_tiles",
        "DELETE FROM ledger.events",
        "INSERT INTO ledger.events SELECT * FROM public.kept",
        "INSERT INTO ledger.log_tiles SELECT * FROM public.kept_tiles",
    )
    restored = await step(log.database)

    assert [(progress.position, progress.changed_position) for progress in found] == [(512, position)] * 2
    assert description in str(found[0].problem())
    assert "find out who changed it" in str(found[0].problem())
    assert "accept" not in str(found[0].problem())
    assert (restored.position, restored.problem()) == (1024, None)
    assert [record.levelname for record in caplog.records if "LOG CHANGED" in record.message] == ["CRITICAL"]


async def test_an_event_changed_together_with_its_tile_is_found_by_the_level_above(log: SealedLog) -> None:
    await step(log.database)
    await damage(
        log.database,
        "UPDATE ledger.events SET actor = 'me' WHERE position = 700",
        "UPDATE ledger.log_tiles SET hashes = (SELECT string_agg(leaf, ''::bytea ORDER BY position) FROM ("
        f"{LEAVES}) AS leaves) WHERE level = 0 AND index = 2",
    )

    assert (await step(log.database)).changed_position == 513


LEAVES = (
    reverification.tree_store.READ_LEAF_HASHES.replace("string_agg(", "")
    .replace(", ''::bytea ORDER BY position)", " AS leaf, position")
    .replace("$1", "512")
    .replace("$2", "768")
)


@pytest.fixture
async def changed(log: SealedLog) -> SealedLog:
    """A log in which the event at position 5, far from its end, was changed, and found."""
    await damage(log.database, "UPDATE ledger.events SET actor = 'me' WHERE position = 5")
    await step(log.database)
    return log


async def test_readyz_metrics_and_doctor_report_a_changed_event(changed: SealedLog, database_url: URL) -> None:
    async with served(changed.database) as client:
        status, readiness = await get_json(client, "/readyz")
        async with client.get("/metrics") as answer:
            metrics = await answer.text()
    checks = {
        check.name: check
        for check in await examine_databases(Settings(database_url=database_url, direct_database_url=database_url))
    }

    status_command = await ledger("status", database=database_url)

    assert "LOG CHANGED: the event at position 5 differs from the seal" in status_command.out
    assert (status, readiness["status"]) == (503, "log-changed")
    assert "the event at position 5 differs from the seal" in readiness["log"]
    assert "ledger_log_changed_position 5.0" in metrics
    assert checks["log"].verdict == "problem"
    assert "position 5" in checks["log"].says


async def test_readyz_and_metrics_report_the_progress(log: SealedLog) -> None:
    for _ in range(4):
        await step(log.database)

    async with served(log.database) as client:
        _, readiness = await get_json(client, "/readyz")
        async with client.get("/metrics") as answer:
            metrics = await answer.text()

    assert readiness["log"] == "ok"
    assert readiness["reverification"]["position"] == 512
    assert readiness["reverification"]["last_full_pass"].endswith("Z")
    assert "ledger_reverified_position 512.0" in metrics
    assert "ledger_reverification_last_pass_timestamp_seconds 1" in metrics
    assert "ledger_log_changed_position 0.0" in metrics


async def test_the_service_re_verifies_where_it_seals(
    log: SealedLog, database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reverification, "START_SECONDS", 0.0)
    sealer = await sealer_of(log.database, log.files)

    async with open_database(database_url) as database, served(database, sealer):
        async with asyncio.timeout(30):
            while not await value(log.database, "SELECT position FROM ledger.reverification"):
                await asyncio.sleep(0.05)
