"""Events whose free text was erased fold as before: the tables have '', {} or null in its place."""

from typing import Any
from uuid import UUID

import pytest

from ledger.database import Database
from projections.worker import fold_page
from tests.events import campaign, content, cost, follow, job, reserve
from tests.log.helpers import query, record
from tests.projections.helpers import tables

ERASE = "UPDATE ledger.events SET text = NULL, text_salt = NULL WHERE text IS NOT NULL"

LAUNCH = campaign(name="A name", description="A text")
RENAMED = follow(LAUNCH, "campaign.details_changed", {"name": "Another", "description": "Another text"})
POST = content(title="A title", content="A text", metadata={"a": 1})
DONE, BROKEN = job(input_data={"a": 1}), job(input_data={"a": 1})
SPENT = cost("5", description="A text")


@pytest.mark.parametrize(
    ("table", "events", "shown"),
    [
        ("campaigns", [LAUNCH], {"name": "", "description": None}),
        ("campaigns", [LAUNCH, RENAMED], {"name": "", "description": None}),
        ("content_assets", [POST], {"title": "", "content": "", "metadata": "{}"}),
        ("agent_jobs", [DONE, follow(DONE, "job.started"), follow(DONE, "job.completed", {"output_data": {"a": 1}})],
         {"input_data": "{}", "output_data": None}),
        ("agent_jobs", [BROKEN, follow(BROKEN, "job.failed", {"error_message": "A text"})],
         {"input_data": "{}", "error_message": None}),
        ("budget_entries", [SPENT], {"description": None, "cost": 5}),
        ("budget_entries", [SPENT, follow(SPENT, "cost.adjusted", {"amount": "-1", "reason": "A text"})],
         {"description": None, "cost": 4}),
    ],
)  # fmt: skip
async def test_an_erased_text_is_empty_in_the_tables(
    database: Database, table: str, events: list[dict[str, Any]], shown: dict[str, Any]
) -> None:
    await record(database, *events)
    await query(database, ERASE)

    await fold_page(database)

    row = (await tables(database))[table][UUID(events[0]["id"])]
    assert {column: row[column] for column in shown} == shown


@pytest.mark.parametrize(
    "events",
    [
        [SPENT, follow(SPENT, "cost.adjusted", {"amount": "-1", "reason": "A text"})],
        [held := reserve(description="A text"), follow(held, "cost.settled", {"cost": "4"})],
    ],
)
async def test_an_entry_whose_texts_were_erased_accepts_events_and_recognises_duplicates(
    database: Database, events: list[dict[str, Any]]
) -> None:
    await record(database, *events)
    await query(database, ERASE)

    again = await record(database, *events)
    (receipt,) = await record(database, follow(events[0], "cost.adjusted", {"amount": "-4", "reason": "Again"}))

    assert [known.duplicate for known in again] == [True, True]
    assert (receipt.version, receipt.position) == (3, 3)
