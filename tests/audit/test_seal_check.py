"""Seal check of `ledger verify`: every change to sealed events, tiles or checkpoint is reported."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from sqlalchemy import URL

from ledger.audit.note import Signer, sign
from ledger.audit.seal_check import find_seal_faults
from ledger.audit.signing_files import LocalCheckpoint
from ledger.audit.tree_growth import RightEdge, append_leaves
from ledger.audit.tree_store import WRITE_TILES, read_leaf_hashes
from ledger.database import Connection, Database
from ledger.runtime import background
from projections.verify import verify
from tests.audit.sealing import ORIGIN, RecordingFiles, clone, fill, open_database, sealer_of, without_triggers
from tests.events import campaign, cost, job
from tests.log.helpers import record, until
from tests.servers.kinds import direct_url

SIZE = 602
FIRST = 5
"""The position of an event with every column filled."""


class Log(NamedTuple):
    database: Database
    local: LocalCheckpoint
    note: bytes

    async def faults(self, *damage: str, local: LocalCheckpoint | None = None) -> list[str]:
        """Return the faults after a superuser has executed these statements, which are then rolled back."""
        async with without_triggers(self.database) as connection:
            for statement in damage:
                await connection.execute(statement)
            found = await find_seal_faults(connection, local, 5)
            await connection.execute("ROLLBACK; BEGIN")
            return found


@pytest.fixture(scope="module")
async def log(server_url: URL, template: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Log]:
    """A sealed log of 602 events."""
    url = direct_url(server_url).set(database=f"faults_{uuid4().hex[:12]}")
    await clone(direct_url(server_url).set(database=template), url)
    files = RecordingFiles(tmp_path_factory.mktemp("home"))
    async with open_database(url) as database:
        opened = campaign("100000")
        worker = job(opened["id"])
        ids = {"correlation_id": str(uuid4()), "causation_id": str(uuid4())}
        described = cost(agent_job_id=worker["id"], campaign_id=opened["id"], description="lunch") | ids
        await record(database, opened, worker, cost(), cost(), described, cost())
        await fill(database, SIZE - 6)
        await (await sealer_of(database, files)).seal()
        local = files.read()
        assert local is not None
        yield Log(database, local, files.notes[-1])


async def test_an_unchanged_log_has_no_faults(log: Log) -> None:
    assert await log.faults() == await log.faults(local=log.local) == []


FLIPPED = {
    "stream_id": "gen_random_uuid()",
    "version": "version + 1",
    "id": "gen_random_uuid()",
    "type": "'cost.reserved'",
    "schema_version": "schema_version + 1",
    "occurred_at": "occurred_at + interval '1 microsecond'",
    "recorded_at": "recorded_at - interval '1 microsecond'",
    "actor": "actor || ' '",
    "campaign_id": "NULL",
    "agent_job_id": "gen_random_uuid()",
    "correlation_id": "NULL",
    "causation_id": "gen_random_uuid()",
    "data": """replace(data::text, '"cost":"1"', '"cost":"2"')::json""",
    "text_commitment": "translate(text_commitment, '0123456789abcdef', '123456789abcdef0')",
}


@pytest.mark.parametrize("column", FLIPPED)
async def test_a_change_of_any_sealed_column_is_found_with_its_position(log: Log, column: str) -> None:
    damage = f"UPDATE ledger.events SET {column} = {FLIPPED[column]} WHERE position = {FIRST}"

    faults = await log.faults(damage)

    assert faults == [
        f"the first {SIZE} events do not give the root of the checkpoint in the database",
        f"the event at position {FIRST} differs from the seal",
    ]


async def test_added_white_space_in_the_data_is_a_change(log: Log) -> None:
    damage = f"UPDATE ledger.events SET data = replace(data::text, ',', ', ')::json WHERE position = {FIRST}"

    assert f"the event at position {FIRST} differs from the seal" in await log.faults(damage)


async def test_both_of_two_swapped_events_are_reported(log: Log) -> None:
    faults = await log.faults("UPDATE ledger.events SET position = 601 - position WHERE position IN (300, 301)")

    assert faults[1:] == [f"the event at position {position} differs from the seal" for position in (300, 301)]


async def test_a_missing_event_is_reported(log: Log) -> None:
    faults = await log.faults("DELETE FROM ledger.events WHERE position = 7")

    assert faults[1:] == ["the event at position 7 was sealed, but is missing"]


async def test_faults_above_the_limit_are_counted(log: Log) -> None:
    faults = await log.faults("UPDATE ledger.events SET actor = 'me' WHERE position > 10")

    assert faults[1:3] == [f"the event at position {position} differs from the seal" for position in (11, 12)]
    assert faults[-1] == f"{SIZE - 10 - 5} more of these"


@pytest.mark.parametrize("outside", [True, False], ids=["with the local checkpoint", "without"])
async def test_a_missing_end_is_found(log: Log, outside: bool) -> None:
    damage = ["DELETE FROM ledger.events WHERE position > 500", "UPDATE ledger.log_head SET position = 500"]

    faults = await log.faults(*damage, local=log.local if outside else None)

    assert faults == ["602 events were signed, but the log has 500: the last 102 are missing"]


async def test_a_change_before_a_missing_end_is_found_too(log: Log) -> None:
    damage = ["DELETE FROM ledger.events WHERE position > 500", "UPDATE ledger.log_head SET position = 500"]

    faults = await log.faults("UPDATE ledger.events SET actor = 'me' WHERE position = 3", *damage)

    assert "the event at position 3 differs from the seal" in faults


FLIP = """
UPDATE ledger.log_tiles SET hashes = set_byte(hashes, 33, 255 - get_byte(hashes, 33)) WHERE level = {} AND index = {}
"""


@pytest.mark.parametrize(("level", "index"), [(0, 0), (0, 1), (0, 2), (1, 0)])
@pytest.mark.parametrize(
    "damage",
    [FLIP, "DELETE FROM ledger.log_tiles WHERE level = {} AND index = {}"],
    ids=["changed", "deleted"],
)
async def test_a_wrong_tile_is_reported_if_the_events_are_those_that_were_signed(
    log: Log, damage: str, level: int, index: int
) -> None:
    faults = await log.faults(damage.format(level, index))

    assert faults == [f"tile {index} of level {level} differs from the tile that the events give"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            "UPDATE ledger.log_checkpoint SET root = sha256('')",
            "do not give the root of the checkpoint in the database",
        ),
        ("UPDATE ledger.log_checkpoint SET size = 600", "is of 602 events"),
        ("UPDATE ledger.log_checkpoint SET origin = 'other'", "events of other"),
        ("UPDATE ledger.log_checkpoint SET note = NULL", "its signed checkpoint is missing"),
        ("UPDATE ledger.log_checkpoint SET verifier_key = 'other'", "not what was signed"),
        ("UPDATE ledger.log_checkpoint SET note = substr(note, 2)", "not what was signed"),
        ("DELETE FROM ledger.log_checkpoint", "has been deleted"),
    ],
)
async def test_a_changed_checkpoint_is_reported(log: Log, damage: str, message: str) -> None:
    assert message in " ".join(await log.faults(damage))


async def rewrite_log(connection: Connection, signer: Signer, size: int) -> None:
    """Change an event, rebuild everything in the database that depends on it, and sign with the given key."""
    await connection.execute("UPDATE ledger.events SET actor = 'me' WHERE position = 3")
    await connection.execute("DELETE FROM ledger.log_tiles")
    tiles, edge = append_leaves(RightEdge(), await read_leaf_hashes(connection, 0, size))
    levels, indexes = zip(*tiles, strict=True)
    await connection.execute(WRITE_TILES, levels, indexes, list(tiles.values()))
    note = sign(f"{ORIGIN}\n{size}\n{base64.b64encode(edge.root).decode()}\n", signer)
    await connection.execute(
        "UPDATE ledger.log_checkpoint SET size = $1, root = $2, verifier_key = $3, note = $4",
        size,
        edge.root,
        signer.verifier.text,
        note,
    )


async def test_only_the_signing_files_show_that_the_log_was_rewritten_with_another_key(log: Log) -> None:
    async with without_triggers(log.database) as connection:
        await rewrite_log(connection, Signer.generate(ORIGIN), SIZE)
        without_signing_files = await find_seal_faults(connection, None, 5)
        with_the_key = await find_seal_faults(connection, LocalCheckpoint(log.local.verifier, None), 5)
        with_the_checkpoint = await find_seal_faults(connection, log.local, 5)
        await connection.execute("ROLLBACK; BEGIN")

    assert without_signing_files == []
    assert [fault.split(" ledger")[0] for fault in with_the_key] == ["the log is sealed with the key"]
    assert with_the_checkpoint[1:] == [
        f"the first {SIZE} events do not give the root of the checkpoint in the signing files"
    ]


@pytest.mark.direct
async def test_a_correct_log_has_no_faults_while_the_service_runs(
    database: Database, database_url: URL, tmp_path: Path
) -> None:
    files = RecordingFiles(tmp_path)
    differences: list[Any] = []

    async def write(append: Callable[..., Any]) -> None:
        while True:
            await append(database, *(cost() for _ in range(7)))
            await asyncio.sleep(0.01)

    async with (
        open_database(database_url) as other,
        background(other, with_worker=True, sealer=await sealer_of(other, files)),
    ):
        writer = asyncio.create_task(write(record))

        async def has_sealed() -> bool:
            return len(files.notes) > 1

        await until(has_sealed)
        reports = [await verify(database, differences.append, files.read()) for _ in range(6)]
        writer.cancel()

    assert [report.faults for report in reports] == [[]] * 6
    assert differences == []
    assert reports[-1].head > reports[0].head > 0


async def test_verify_reports_a_gap_although_the_log_cannot_be_replayed(database: Database, tmp_path: Path) -> None:
    files = RecordingFiles(tmp_path)
    await record(database, cost(), cost(), cost())
    await (await sealer_of(database, files)).seal()
    async with without_triggers(database) as connection:
        await connection.execute("DELETE FROM ledger.events WHERE position = 2")

    report = await verify(database, lambda difference: None, files.read())

    assert "the event at position 2 was sealed, but is missing" in report.faults
    assert not report.is_clean
