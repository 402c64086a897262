"""`ledger verify` against an administrator who changes what was sealed: each change is found and named."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
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
from tests.audit.sealing import ORIGIN, RecordingFiles, clone, fill, open_database, sealer_of, unguarded
from tests.events import campaign, cost, job
from tests.log.helpers import record, until
from tests.servers.kinds import direct_url

if TYPE_CHECKING:
    pass

SIZE = 602
FIRST = 5
"""The position of an event with every column filled."""


class Log(NamedTuple):
    database: Database
    kept: LocalCheckpoint
    note: bytes

    async def faults(self, *harm: str, kept: LocalCheckpoint | None = None) -> list[str]:
        """What is found after a superuser has done this; it is undone again."""
        async with unguarded(self.database) as connection:
            for statement in harm:
                await connection.execute(statement)
            found = await find_seal_faults(connection, kept, 5)
            await connection.execute("ROLLBACK; BEGIN")
            return found


@pytest.fixture(scope="module")
async def log(server_url: URL, template: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Log]:
    """602 sealed events."""
    url = direct_url(server_url).set(database=f"faults_{uuid4().hex[:12]}")
    await clone(direct_url(server_url).set(database=template), url)
    home = RecordingFiles(tmp_path_factory.mktemp("home"))
    async with open_database(url) as database:
        opened = campaign("100000")
        worker = job(opened["id"])
        ids = {"correlation_id": str(uuid4()), "causation_id": str(uuid4())}
        described = cost(agent_job_id=worker["id"], campaign_id=opened["id"], description="lunch") | ids
        await record(database, opened, worker, cost(), cost(), described, cost())
        await fill(database, SIZE - 6)
        await (await sealer_of(database, home)).seal()
        kept = home.read()
        assert kept is not None
        yield Log(database, kept, home.notes[-1])


async def test_what_was_not_changed_is_without_fault(log: Log) -> None:
    assert await log.faults() == await log.faults(kept=log.kept) == []


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
async def test_a_change_of_any_sealed_column_is_found_where_it_is(log: Log, column: str) -> None:
    harm = f"UPDATE ledger.events SET {column} = {FLIPPED[column]} WHERE position = {FIRST}"

    faults = await log.faults(harm)

    assert faults == [
        f"the first {SIZE} events do not give the root of the checkpoint in the database",
        f"the event at position {FIRST} is not what was sealed",
    ]


async def test_white_space_in_the_data_is_a_change_too(log: Log) -> None:
    harm = f"UPDATE ledger.events SET data = replace(data::text, ',', ', ')::json WHERE position = {FIRST}"

    assert f"the event at position {FIRST} is not what was sealed" in await log.faults(harm)


async def test_events_that_changed_places_are_both_named(log: Log) -> None:
    faults = await log.faults("UPDATE ledger.events SET position = 601 - position WHERE position IN (300, 301)")

    assert faults[1:] == [f"the event at position {position} is not what was sealed" for position in (300, 301)]


async def test_an_event_that_is_missing_is_named(log: Log) -> None:
    faults = await log.faults("DELETE FROM ledger.events WHERE position = 7")

    assert faults[1:] == ["the event at position 7 was sealed, but is missing"]


async def test_many_faults_are_counted(log: Log) -> None:
    faults = await log.faults("UPDATE ledger.events SET actor = 'me' WHERE position > 10")

    assert faults[1:3] == [f"the event at position {position} is not what was sealed" for position in (11, 12)]
    assert faults[-1] == f"{SIZE - 10 - 5} more of these"


@pytest.mark.parametrize("outside", [True, False], ids=["with the kept checkpoint", "without"])
async def test_a_missing_end_is_found(log: Log, outside: bool) -> None:
    harm = ["DELETE FROM ledger.events WHERE position > 500", "UPDATE ledger.log_head SET position = 500"]

    faults = await log.faults(*harm, kept=log.kept if outside else None)

    assert faults == ["602 events were signed, but the log has 500: the last 102 are missing"]


async def test_a_change_before_a_missing_end_is_found_too(log: Log) -> None:
    harm = ["DELETE FROM ledger.events WHERE position > 500", "UPDATE ledger.log_head SET position = 500"]

    faults = await log.faults("UPDATE ledger.events SET actor = 'me' WHERE position = 3", *harm)

    assert "the event at position 3 is not what was sealed" in faults


FLIP = """
UPDATE ledger.log_tiles SET hashes = set_byte(hashes, 33, 255 - get_byte(hashes, 33)) WHERE level = {} AND index = {}
"""


@pytest.mark.parametrize(("level", "index"), [(0, 0), (0, 1), (0, 2), (1, 0)])
@pytest.mark.parametrize(
    "harm",
    [FLIP, "DELETE FROM ledger.log_tiles WHERE level = {} AND index = {}"],
    ids=["changed", "deleted"],
)
async def test_a_tile_is_named_where_the_events_are_what_was_signed(
    log: Log, harm: str, level: int, index: int
) -> None:
    faults = await log.faults(harm.format(level, index))

    assert faults == [f"tile {index} of level {level} differs from the tile that the events give"]


@pytest.mark.parametrize(
    ("harm", "told"),
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
async def test_a_changed_checkpoint_is_told(log: Log, harm: str, told: str) -> None:
    assert told in " ".join(await log.faults(harm))


async def rewritten(connection: Connection, signer: Signer, size: int) -> None:
    """Everything in the database follows from a changed event, and is signed with a key of its own."""
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


async def test_only_what_is_kept_outside_shows_that_all_was_rewritten_with_another_key(log: Log) -> None:
    async with unguarded(log.database) as connection:
        await rewritten(connection, Signer.generate(ORIGIN), SIZE)
        seen_from_inside = await find_seal_faults(connection, None, 5)
        with_the_key = await find_seal_faults(connection, LocalCheckpoint(log.kept.verifier, None), 5)
        with_the_checkpoint = await find_seal_faults(connection, log.kept, 5)
        await connection.execute("ROLLBACK; BEGIN")

    assert seen_from_inside == []
    assert [fault.split(" ledger")[0] for fault in with_the_key] == ["the log is sealed with the key"]
    assert with_the_checkpoint[1:] == [
        f"the first {SIZE} events do not give the root of the checkpoint in the signing files"
    ]


@pytest.mark.direct
async def test_a_clean_log_is_found_clean_while_everything_runs(
    database: Database, database_url: URL, tmp_path: Path
) -> None:
    home = RecordingFiles(tmp_path)
    differences: list[Any] = []

    async def write(append: Callable[..., Any]) -> None:
        while True:
            await append(database, *(cost() for _ in range(7)))
            await asyncio.sleep(0.01)

    async with (
        open_database(database_url) as other,
        background(other, with_worker=True, sealer=await sealer_of(other, home)),
    ):
        writer = asyncio.create_task(write(record))

        async def has_begun() -> bool:
            return len(home.notes) > 1

        await until(has_begun)
        reports = [await verify(database, differences.append, home.read()) for _ in range(6)]
        writer.cancel()

    assert [report.faults for report in reports] == [[]] * 6
    assert differences == []
    assert reports[-1].head > reports[0].head > 0


async def test_a_gap_is_told_by_verify_although_the_log_cannot_be_replayed(database: Database, tmp_path: Path) -> None:
    home = RecordingFiles(tmp_path)
    await record(database, cost(), cost(), cost())
    await (await sealer_of(database, home)).seal()
    async with unguarded(database) as connection:
        await connection.execute("DELETE FROM ledger.events WHERE position = 2")

    report = await verify(database, lambda difference: None, home.read())

    assert "the event at position 2 was sealed, but is missing" in report.faults
    assert not report.is_clean
