"""Each check of the fault suite detects its violation, planted in a real database with plain SQL."""

from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from sqlalchemy import URL

from ledger.audit.signed_checkpoint import Checkpoint
from ledger.audit.signing_files import SigningFiles
from ledger.bench.faults import full_check
from ledger.bench.faults.checker import Checker
from ledger.bench.faults.checkpoint_checker import CheckpointChecker
from ledger.bench.faults.history import History
from ledger.database import Database
from tests.audit.sealing import ORIGIN, sealer_of, served
from tests.events import campaign, cost, follow, job, reserve
from tests.log.helpers import record
from tests.projections.replaying import fold_everything, tamper

pytestmark = pytest.mark.direct

OPENED = campaign("10")
QUEUED = job(OPENED["id"])
RESERVED = reserve("4", campaign_id=OPENED["id"])
BATCH = [QUEUED, follow(QUEUED, "job.started"), cost("1", agent_job_id=QUEUED["id"])]
LAST = cost("0.5", campaign_id=OPENED["id"])
"""Positions 1; 2; 3 to 5; 6."""


class CheckedLog:
    """A log of six events, the history of the clients that sent them, and the checks."""

    def __init__(self, database: Database, url: URL, folder: Path) -> None:
        self.database = database
        self.url = url
        self.files = SigningFiles(folder, None, ORIGIN)
        self.history = History()
        self.checker = Checker(self.history)

    async def send(self, *events: dict[str, Any]) -> None:
        self.history.record_sent([UUID(event["id"]) for event in events], atomic=True)
        for receipt in await record(self.database, *events):
            self.history.record_receipt(msgspec.to_builtins(receipt))

    async def check_new_events(self) -> list[str]:
        async with self.database.connection() as connection:
            return await self.checker.violations(connection, self.history.take_unchecked())

    async def check_fully(self) -> list[str]:
        return await full_check.violations(self.database, self.files.read(), self.history)


@pytest.fixture
async def log(database: Database, database_url: URL, tmp_path: Path) -> CheckedLog:
    log = CheckedLog(database, database_url, tmp_path)
    for events in ([OPENED], [RESERVED], BATCH, [LAST]):
        await log.send(*events)
    await fold_everything(database)
    await (await sealer_of(database, log.files)).seal()
    return log


async def test_an_intact_log_has_no_violations(log: CheckedLog) -> None:
    assert await log.check_new_events() == []
    assert await log.check_new_events() == []
    assert await log.check_fully() == []
    assert log.history.violations == []


DELETED = "DELETE FROM ledger.events WHERE position = {}; UPDATE ledger.log_head SET position = 5"
DUPLICATED = f"""
INSERT INTO ledger.cost_events
SELECT (jsonb_populate_record(event, jsonb_build_object('position', 7, 'stream_id', '{uuid4()}'))).*
FROM ledger.cost_events AS event WHERE position = 6;
UPDATE ledger.log_head SET position = 7
"""
VIOLATIONS = {
    "an acknowledged event that is missing": (DELETED.format(6), "was acknowledged at position 6, but is missing"),
    "an event that is recorded twice": (DUPLICATED, "is also at position 6"),
    "a gap in the positions": (
        "UPDATE ledger.events SET position = 7 WHERE position = 6; UPDATE ledger.log_head SET position = 7",
        "position 7: it follows position 5",
    ),
    "two events at one position": (
        "UPDATE ledger.events SET position = 5 WHERE position = 6",
        "position 5: it follows position 5",
    ),
    "an event that was moved": (
        "UPDATE ledger.events SET position = 11 - position WHERE position > 4",
        "the receipt is",
    ),
    "a gap in the versions": ("UPDATE ledger.events SET version = 3 WHERE position = 4", "version 3 of job stream"),
    "a batch of which an event is missing": (DELETED.format(5), "of a batch of 3 events, 2 are in the log"),
    "a time that runs backwards": (
        "UPDATE ledger.events SET recorded_at = recorded_at - interval '1 day' WHERE position = 6",
        "before its predecessor",
    ),
    "an event that no client has sent": (
        f"UPDATE ledger.events SET id = '{uuid4()}' WHERE position = 6",
        "no client has sent event",
    ),
    "a hold over its limit": (
        "UPDATE ledger.events SET data = replace(data::text, '\"4\"', '\"40\"')::json WHERE position = 2",
        "a hold of 40 brought",
    ),
    "a balance that is not what was spent": ("UPDATE ledger.accounts SET spent = spent + 1", "the events give"),
    "a log head that is not at the last event": (
        "UPDATE ledger.log_head SET position = 9",
        "the log head is not at the last event",
    ),
    "a sealer that refuses": (
        "UPDATE ledger.log_checkpoint SET refusal = 'shorter'",
        "the sealer refuses to seal: shorter",
    ),
}


@pytest.mark.parametrize("violation", VIOLATIONS)
async def test_the_check_after_a_fault_detects(log: CheckedLog, violation: str) -> None:
    statements, message = VIOLATIONS[violation]
    await tamper(log.url, statements)

    found = await log.check_new_events()

    assert any(message in each for each in found), found


async def test_the_check_after_a_fault_detects_that_a_checked_event_has_disappeared(log: CheckedLog) -> None:
    assert await log.check_new_events() == []
    await tamper(log.url, DELETED.format(6))

    assert "the event at position 6 has disappeared" in await log.check_new_events()


async def test_the_check_after_a_fault_detects_a_refused_event_in_the_log(log: CheckedLog) -> None:
    log.history.refused.add(UUID(LAST["id"]))

    assert await log.check_new_events() == [f"position 6: event {LAST['id']} was refused"]


async def test_different_receipts_of_one_event_are_a_violation(log: CheckedLog) -> None:
    receipt = {"id": LAST["id"], "stream_id": LAST["id"], "version": 1, "position": 6, "duplicate": True}
    log.history.record_receipt(receipt)
    assert log.history.violations == []

    log.history.record_receipt(receipt | {"position": 5})

    assert len(log.history.violations) == 1


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
async def test_the_full_check_detects_what_the_check_after_a_fault_does_not(log: CheckedLog, statement: str) -> None:
    await tamper(log.url, statement)

    assert await log.check_new_events() == []
    assert any(violation.startswith("ledger verify:") for violation in await log.check_fully())


FORKED = """
UPDATE ledger.events SET actor = 'somebody' WHERE position = 3;
DELETE FROM ledger.log_tiles;
UPDATE ledger.log_checkpoint SET size = 0, root = sha256(''), note = NULL, verifier_key = NULL, origin = NULL
"""


async def test_checkpoints_reveal_a_forked_log(log: CheckedLog) -> None:
    local = log.files.read()
    assert local is not None
    checker = CheckpointChecker(log.files, local.verifier)
    sealer = await sealer_of(log.database, log.files)
    async with served(log.database) as client:
        before = await checker.violations(client, "")
        await log.send(cost("0.1"))
        await sealer.seal()
        extended = await checker.violations(client, "")

        await tamper(log.url, FORKED)
        log.files.checkpoint_file.unlink()
        await sealer.seal()
        forked = await checker.violations(client, "")
        await log.send(cost("0.1"))
        await sealer.seal()
        later = await checker.violations(client, "")

    assert (before, extended, checker.count) == ([], [], 3)
    assert forked == ["two checkpoints of 7 events have different roots: the log has been forked"] * 2
    assert ["is not shown to extend" in violation for violation in later] == [True]


async def test_a_checkpoint_smaller_than_an_earlier_one_is_a_violation(log: CheckedLog) -> None:
    local = log.files.read()
    assert local is not None
    assert local.checkpoint is not None
    checker = CheckpointChecker(log.files, local.verifier)
    checker._last_served = Checkpoint(local.checkpoint.origin, 9, b"9" * 32)
    async with served(log.database) as client:
        assert await checker.violations(client, "") == ["a checkpoint of 9 events was served, and later one of 6"]
