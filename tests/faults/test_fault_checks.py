"""Each check of the fault suite finds what it is there for: planted behind the service's back in a real database."""

from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from sqlalchemy import URL

from ledger.audit.signed_checkpoint import Checkpoint
from ledger.audit.signing_files import SigningFiles
from ledger.database import Database
from ledger.faults import thorough
from ledger.faults.look import Look
from ledger.faults.seals import Seals
from ledger.faults.witness import Witness
from tests.audit.sealing import ORIGIN, sealer_of, served
from tests.events import campaign, cost, follow, job, reserve
from tests.log.helpers import record
from tests.projections.replaying import fold_everything, tamper

pytestmark = pytest.mark.direct

OPENED = campaign("10")
QUEUED = job(OPENED["id"])
HELD = reserve("4", campaign_id=OPENED["id"])
BATCH = [QUEUED, follow(QUEUED, "job.started"), cost("1", agent_job_id=QUEUED["id"])]
LAST = cost("0.5", campaign_id=OPENED["id"])
"""Positions 1; 2; 3 to 5; 6."""


class ShownLog:
    """A log of six events, and what the clients who sent them know."""

    def __init__(self, database: Database, url: URL, folder: Path) -> None:
        self.database = database
        self.url = url
        self.home = SigningFiles(folder, None, ORIGIN)
        self.witness = Witness()
        self.look = Look(self.witness)

    async def send(self, *events: dict[str, Any]) -> None:
        self.witness.sends([UUID(event["id"]) for event in events], together=True)
        for receipt in await record(self.database, *events):
            self.witness.hears(msgspec.to_builtins(receipt))

    async def looked(self) -> list[str]:
        async with self.database.connection() as connection:
            return await self.look.violations(connection, self.witness.take_unchecked())

    async def verified(self) -> list[str]:
        return await thorough.violations(self.database, self.home.read(), self.witness)


@pytest.fixture
async def book(database: Database, database_url: URL, tmp_path: Path) -> ShownLog:
    book = ShownLog(database, database_url, tmp_path)
    for events in ([OPENED], [HELD], BATCH, [LAST]):
        await book.send(*events)
    await fold_everything(database)
    await (await sealer_of(database, book.home)).seal()
    return book


async def test_where_everything_holds_nothing_is_found(book: ShownLog) -> None:
    assert await book.looked() == []
    assert await book.looked() == []
    assert await book.verified() == []
    assert book.witness.violations == []


GONE = "DELETE FROM ledger.events WHERE position = {}; UPDATE ledger.log_head SET position = 5"
TWICE = f"""
INSERT INTO ledger.cost_events
SELECT (jsonb_populate_record(event, jsonb_build_object('position', 7, 'stream_id', '{uuid4()}'))).*
FROM ledger.cost_events AS event WHERE position = 6;
UPDATE ledger.log_head SET position = 7
"""
PLANTED = {
    "an acknowledged event that is gone": (GONE.format(6), "was acknowledged at position 6, and is not there"),
    "an event that is there twice": (TWICE, "is also at 6"),
    "a gap in the positions": (
        "UPDATE ledger.events SET position = 7 WHERE position = 6; UPDATE ledger.log_head SET position = 7",
        "position 7 comes after 5",
    ),
    "two events at one position": (
        "UPDATE ledger.events SET position = 5 WHERE position = 6",
        "position 5 comes after 5",
    ),
    "an event that was moved": (
        "UPDATE ledger.events SET position = 11 - position WHERE position > 4",
        "the receipt says",
    ),
    "a gap in the versions": ("UPDATE ledger.events SET version = 3 WHERE position = 4", "version 3 of job stream"),
    "a batch of which a part is gone": (GONE.format(5), "of a batch of 3 events 2 are in the log"),
    "a time that runs backwards": (
        "UPDATE ledger.events SET recorded_at = recorded_at - interval '1 day' WHERE position = 6",
        "before its predecessor",
    ),
    "an event that nobody has sent": (
        f"UPDATE ledger.events SET id = '{uuid4()}' WHERE position = 6",
        "nobody has sent event",
    ),
    "a hold past its limit": (
        "UPDATE ledger.events SET data = replace(data::text, '\"4\"', '\"40\"')::json WHERE position = 2",
        "a hold of 40 brought",
    ),
    "a balance that is not what was spent": ("UPDATE ledger.accounts SET spent = spent + 1", "the events give"),
    "a head that is not the last event": ("UPDATE ledger.log_head SET position = 9", "head is not at its last event"),
    "a sealer that refuses": ("UPDATE ledger.log_checkpoint SET refusal = 'shorter'", "the sealer refuses: shorter"),
}


@pytest.mark.parametrize("planted", PLANTED)
async def test_a_look_finds(book: ShownLog, planted: str) -> None:
    statements, sentence = PLANTED[planted]
    await tamper(book.url, statements)

    found = await book.looked()

    assert any(sentence in violation for violation in found), found


async def test_a_look_finds_that_what_was_seen_before_is_gone(book: ShownLog) -> None:
    assert await book.looked() == []
    await tamper(book.url, GONE.format(6))

    assert "what was at position 6 is gone" in await book.looked()


async def test_a_look_finds_an_event_that_was_refused(book: ShownLog) -> None:
    book.witness.refused.add(UUID(LAST["id"]))

    assert await book.looked() == [f"position 6: event {LAST['id']} was refused"]


async def test_receipts_of_one_event_that_differ_are_found(book: ShownLog) -> None:
    receipt = {"id": LAST["id"], "stream_id": LAST["id"], "version": 1, "position": 6, "duplicate": True}
    book.witness.hears(receipt)
    assert book.witness.violations == []

    book.witness.hears(receipt | {"position": 5})

    assert len(book.witness.violations) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE public.campaigns SET spend = spend + 1",
        "DELETE FROM public.budget_entries WHERE cost = 0.5",
        "UPDATE ledger.holds SET amount = 3",
        "UPDATE ledger.events SET actor = 'somebody' WHERE position = 3",
        "UPDATE ledger.log_tiles SET hashes = set_byte(hashes, 0, 255 - get_byte(hashes, 0))",
    ],
)
async def test_the_thorough_check_finds_what_a_look_does_not(book: ShownLog, statement: str) -> None:
    await tamper(book.url, statement)

    assert await book.looked() == []
    assert any(violation.startswith("ledger verify:") for violation in await book.verified())


FORKED = """
UPDATE ledger.events SET actor = 'somebody' WHERE position = 3;
DELETE FROM ledger.log_tiles;
UPDATE ledger.log_checkpoint SET size = 0, root = sha256(''), note = NULL, verifier_key = NULL, origin = NULL
"""


async def test_a_forked_log_is_found_by_its_checkpoints(book: ShownLog) -> None:
    kept = book.home.read()
    assert kept is not None
    seals = Seals(book.home, kept.verifier)
    sealer = await sealer_of(book.database, book.home)
    async with served(book.database) as client:
        before = await seals.violations(client, "")
        await book.send(cost("0.1"))
        await sealer.seal()
        extended = await seals.violations(client, "")

        await tamper(book.url, FORKED)
        book.home.checkpoint_file.unlink()
        await sealer.seal()
        forked = await seals.violations(client, "")
        await book.send(cost("0.1"))
        await sealer.seal()
        later = await seals.violations(client, "")

    assert (before, extended, seals.count) == ([], [], 3)
    assert forked == ["two checkpoints of 7 events have different roots: the log has been forked"] * 2
    assert ["is not shown to extend" in violation for violation in later] == [True]


async def test_a_checkpoint_that_goes_back_is_found(book: ShownLog) -> None:
    kept = book.home.read()
    assert kept is not None
    assert kept.checkpoint is not None
    seals = Seals(book.home, kept.verifier)
    seals._served = Checkpoint(kept.checkpoint.origin, 9, b"9" * 32)
    async with served(book.database) as client:
        assert await seals.violations(client, "") == ["a checkpoint of 9 events was served, and later one of 6"]
