"""`ledger events erase`: erases free text, and records who did it and why."""

import getpass
import json
from typing import Any

import pytest
from sqlalchemy import URL

from ledger.database import Database
from tests.cli.helpers import REPOSITORY, CommandResult, ledger
from tests.events import campaign, follow, job
from tests.log.helpers import query, record, value


async def erase(*arguments: str, database: URL) -> CommandResult:
    """Run the command of this checkout, even if another one is installed."""
    return await ledger("events", "erase", *arguments, database=database, PYTHONPATH=str(REPOSITORY))


async def test_it_erases_and_prints_the_position_of_the_record(database_url: URL, database: Database) -> None:
    await record(database, campaign(), campaign())

    in_words = await erase("1", "--reason", "The customer asked", database=database_url)
    as_json = await erase("2", "--reason", "The customer asked", "--json", database=database_url)

    assert (in_words.code, as_json.code) == (0, 0), (in_words.err, as_json.err)
    assert "campaign.created at position 1; recorded at position 3" in in_words.out
    answer = json.loads(as_json.out)
    assert (answer["position"], answer["recorded_position"], answer["category"]) == (2, 4, "campaign")
    assert await value(database, "SELECT count(*) FROM ledger.campaign_events WHERE text IS NOT NULL") == 0
    recorded = await query(database, "SELECT data ->> 'by', text ->> 'reason' FROM ledger.ledger_events")
    assert recorded == [(getpass.getuser(), "The customer asked")] * 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["2", "--reason", "Why"], 1, "has no free text"),
        (["3", "--reason", "Why"], 1, "no event at position 3"),
        (["1"], 2, "--reason"),
        (["1", "--reason", ""], 2, "1 to 500 characters"),
        (["1", "--reason", "x" * 501], 2, "1 to 500 characters"),
        (["1", "--reason", "\udcff"], 2, "UTF-8"),
        (["0", "--reason", "Why"], 2, "POSITION"),
        ([str(2**63), "--reason", "Why"], 2, "POSITION"),
    ],
)
async def test_it_explains_what_it_cannot_erase_and_records_nothing(
    database_url: URL, database: Database, arguments: list[Any], code: int, message: str
) -> None:
    queued = job(input_data={"a": 1})
    await record(database, queued, follow(queued, "job.started"))

    answer = await erase(*arguments, database=database_url)

    assert (answer.code, answer.out) == (code, "")
    assert message in answer.err
    assert "Traceback" not in answer.err
    assert await value(database, "SELECT count(*) FROM ledger.events WHERE text IS NOT NULL OR position > 1") == 2
