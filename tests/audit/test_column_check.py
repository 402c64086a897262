"""Column check of `ledger verify`: a column changed by hand is found, and its position reported."""

import random
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import URL

from ledger.audit import column_check
from ledger.database import Connection, Database
from ledger.log.tables import EVENT_COLUMNS, SCHEMA
from projections.verify import verify
from projections.worker import fold_page
from tests.conftest import administer
from tests.domain.test_machine import WorkingStateMachine
from tests.events import campaign, cost, credit, follow, job, reserve
from tests.log.erasures import erased
from tests.log.helpers import connected, query, record, request
from tests.projections.helpers import append_requests, sample_history
from tests.projections.test_worker import random_history
from tests.rules.threaded_service import Run, loop_in_a_thread
from tests.servers.kinds import direct_url

LAUNCH = campaign("10", description="A text")
CAPPED = job(LAUNCH["id"], budget="5")
HELD = reserve("4", agent_job_id=CAPPED["id"])
SPENT = cost("7", agent_job_id=CAPPED["id"], description="A text")
LOG = [
    LAUNCH,  # 1
    CAPPED,  # 2
    HELD,  # 3
    SPENT,  # 4: over the job's cap, and with the hold over the budget
    follow(HELD, "cost.settled", {"cost": "1"}),  # 5: over the job's cap
    follow(SPENT, "cost.adjusted", {"amount": "-4", "reason": "Too much"}),  # 6
    cost("1", agent_job_id=CAPPED["id"]),  # 7: exactly at the cap
    follow(LAUNCH, "campaign.budget_changed", {"budget": "5", "reason": "Less"}),  # 8
    cost("0.0000000001", campaign_id=LAUNCH["id"]),  # 9: over the budget
    cost("1"),  # 10: counts toward no limit
]
OVER = {4: ["job", "campaign"], 5: ["job"], 9: ["campaign"]}


async def faults(database: Database) -> list[str]:
    async with database.connection() as connection:
        return await faults_seen_by(connection)


async def faults_seen_by(connection: Connection) -> list[str]:
    head = await connection.fetchval("SELECT position FROM ledger.log_head")
    return [fault async for fault in column_check.find_column_faults(connection, head)]


def positions(faults: list[str]) -> set[int]:
    return {int(fault.partition(":")[0].removeprefix("position ")) for fault in faults}


async def change(connection: Connection, column: str, value: str, position: int) -> None:
    """Change a stored column, which only a superuser can do."""
    await connection.execute("SET LOCAL session_replication_role = replica")
    await connection.execute("ALTER TABLE ledger.events DROP CONSTRAINT IF EXISTS events_salt_check")
    await connection.execute("ALTER TABLE ledger.events DROP CONSTRAINT IF EXISTS events_commitment_check")
    changed = await connection.execute(f"UPDATE ledger.events SET {column} = {value} WHERE position = {position}")
    assert changed == "UPDATE 1"


@pytest.fixture(scope="module")
async def log_url(server_url: URL, template: str) -> AsyncIterator[URL]:
    """A database with this log, whose first event was then erased at position 11."""
    name = f"columns_{uuid.uuid4().hex[:12]}"
    await administer(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    database = Database(direct_url(server_url).set(database=name))
    await record(database, *LOG)
    await erased(database, 1)
    await database.close()
    yield direct_url(server_url).set(database=name)
    await administer(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def connection(log_url: URL) -> AsyncIterator[Connection]:
    """A connection to that database; changes by a test are rolled back."""
    async with connected(log_url) as connection:
        everything = connection.transaction()
        await everything.start()
        yield connection
        await everything.rollback()


async def test_the_unchanged_log_is_over_budget_as_expected_and_has_no_faults(database: Database) -> None:
    receipts = await record(database, *LOG)

    assert {receipt.position: receipt.over_budget for receipt in receipts if receipt.over_budget} == OVER
    assert await faults(database) == []


async def test_a_budget_of_null_is_no_limit(database: Database) -> None:
    opened, capped = campaign(None), job(budget=None)
    of_both = {"campaign_id": opened["id"], "agent_job_id": capped["id"]}
    capped["data"]["campaign_id"] = opened["id"]

    def limited(budget: str | None) -> dict[str, Any]:
        return follow(opened, "campaign.budget_changed", {"budget": budget})

    receipts = await record(
        database,
        opened,
        capped,
        cost("7", **of_both),
        limited("5"),
        cost("0.000000000000000001", **of_both),  # 5: over the budget
        limited(None),
        cost("9999999999", **of_both),
        limited("5"),
        cost("1", campaign_id=opened["id"]),  # 9: over the budget
    )

    over = {receipt.position: receipt.over_budget for receipt in receipts if receipt.over_budget}
    assert over == {5: ["campaign"], 9: ["campaign"]}
    assert await faults(database) == []


FLIPPED_BIT = "set_byte(text_salt, 7, get_byte(text_salt, 7) # 1)"
FLIPS: list[tuple[str, str, int]] = [
    *[("size", "size + 1", position) for position in range(1, len(LOG) + 1)],
    *[("size", "0", position) for position in (1, 10, 11)],
    *[("text_salt", FLIPPED_BIT, position) for position in (2, 4, 6, 8, 11)],
    *[("text_salt", "NULL", position) for position in (2, 4)],
    *[("text_commitment", "NULL", position) for position in (2, 4, 8)],
    *[("text_commitment", "overlay(text_commitment PLACING 'x' FROM 64)", position) for position in (2, 6)],
    *[("text_commitment", "upper(text_commitment)", position) for position in (2, 6)],
    *[("text_commitment", "repeat('0', 64)", position) for position in (3, 7, 10)],
    *[("text", "overlay(text::text PLACING 'X' FROM 13)::json", position) for position in (4, 8)],
    *[("text", "(text::text || ' ')::json", position) for position in (2, 6)],
    *[("text", "'{}'", position) for position in (3, 10)],
    *[("text", "NULL", position) for position in (2, 4)],
    *[("data", "(data::text || ' ')::json", position) for position in range(2, len(LOG) + 1)],
    *[("over_budget", "'{job}'", position) for position in (1, 3, 4, 6, 7, 9, 10)],
    *[("over_budget", "'{campaign}'", position) for position in (2, 4, 5, 8, 10)],
    *[("over_budget", "'{job,campaign}'", position) for position in (5, 7, 9)],
    *[("over_budget", "NULL", position) for position in OVER],
    *[("over_budget", "'{}'", position) for position in (1, 4, 7)],
    *[("over_budget", "'{campaign,job}'", position) for position in (4,)],
    *[("over_budget", "'{job,job}'", position) for position in (5,)],
    *[("over_budget", "'{NULL}'", position) for position in (7, 9)],
    *[("over_budget", "'[0:0]={job}'", position) for position in (5,)],
]


@pytest.mark.parametrize(("column", "value", "position"), FLIPS)
async def test_a_changed_column_is_found_with_its_position(
    connection: Connection, column: str, value: str, position: int
) -> None:
    await change(connection, column, value, position)

    assert positions(await faults_seen_by(connection)) == {position}


@pytest.mark.parametrize(
    ("column", "value", "position", "message"),
    [
        ("size", "3", 10, "size is 3, but should be 38 characters"),
        (
            "text",
            "NULL, text_salt = NULL",
            2,
            "the text is missing, but no ledger.payload_erased event records its erasure",
        ),
        ("over_budget", "NULL", 4, "over_budget is null, but the events before it give {job,campaign}"),
        ("over_budget", "'{campaign}'", 10, "over_budget cannot be {campaign}"),
        ("text_salt", FLIPPED_BIT, 8, "the text does not match its salt and commitment"),
    ],
)
async def test_a_fault_is_reported_as_a_sentence(
    connection: Connection, column: str, value: str, position: int, message: str
) -> None:
    await change(connection, column, value, position)

    assert f"position {position}: {message}" in await faults_seen_by(connection)


@pytest.mark.parametrize(
    ("column", "value", "position", "expected"),
    [
        ("size", "size + 1", 1, {1}),
        ("data", """replace(data::text, '"position":1,', '"position":4,')::json""", 11, {1, 11}),
        ("data", """replace(data::text, '"campaign.created"', '"campaign.creatod"')::json""", 11, {11}),
        ("data", """replace(data::text, '"category":"campaign"', '"category":"campaigm"')::json""", 11, {1, 11}),
        ("data", """regexp_replace(data::text, '"size":\\d', '"size":9')::json""", 11, {1}),
        ("data", """regexp_replace(data::text, '"size":\\d+', '"size":"1x"')::json""", 11, {1, 11}),
        ("data", """regexp_replace(data::text, '"stream_id":".', '"stream_id":"x')::json""", 11, {11}),
        ("type", "'ledger.payload_erasod'", 11, {1}),
        ("text", """'{"name":"A"}', text_salt = '\\x00'""", 1, {1, 11}),
    ],
)
async def test_an_erasure_and_what_it_erased_must_agree(
    connection: Connection, column: str, value: str, position: int, expected: set[int]
) -> None:
    await change(connection, column, value, position)

    assert positions(await faults_seen_by(connection)) == expected


async def test_data_that_postgresql_cannot_read_is_reported_and_the_other_checks_continue(
    database: Database, database_url: URL
) -> None:
    await record(database, *LOG)
    async with connected(database_url) as other, other.transaction():
        await change(other, "size", "1", 2)
        await change(other, "data", """'{"cost":"\\u0000"}'""", 10)

    found = await faults(database)

    assert any(fault.startswith("position 2:") for fault in found)
    assert any("cannot be checked" in fault for fault in found)


async def test_an_invalid_amount_does_not_stop_the_check(connection: Connection) -> None:
    await change(connection, "data", """replace(data::text, '"1"', '"x"')::json""", 10)
    await change(connection, "over_budget", "'{job}'", 7)

    assert positions(await faults_seen_by(connection)) == {7}


async def test_verify_reports_column_faults_even_if_the_log_cannot_be_replayed(
    database: Database, database_url: URL
) -> None:
    await record(database, *LOG)
    while await fold_page(database):
        pass
    async with connected(database_url) as other, other.transaction():
        await change(other, "text_salt", FLIPPED_BIT, 8)
        await change(other, "data", """replace(data::text, '"1"', '"x"')::json""", 10)

    report = await verify(database, lambda difference: None)

    assert "position 8: the text does not match its salt and commitment" in report.faults
    assert any("position 10" in fault for fault in report.faults)


async def test_the_list_of_faults_is_limited_and_no_page_is_missed(
    database: Database, database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    await record(database, *LOG)
    async with connected(database_url) as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute("UPDATE ledger.events SET size = 1")
    monkeypatch.setattr(column_check, "EVENTS_PER_STATEMENT_MAX", 3)
    everything = await faults(database)

    monkeypatch.setattr(column_check, "FAULTS_SHOWN_MAX", 7)
    shown = await faults(database)

    assert positions(everything) == set(range(1, 11))
    assert shown == everything[:7]


async def test_the_story_has_no_faults_with_or_without_its_texts(database: Database) -> None:
    await append_requests(database, sample_history())
    before = await faults(database)
    with_text = await query(database, "SELECT position FROM ledger.events WHERE text IS NOT NULL")

    await erased(database, *(position for (position,) in with_text))

    assert (before, await faults(database)) == ([], [])


@pytest.mark.parametrize("seed", range(3))
async def test_random_logs_have_no_faults(database: Database, seed: int) -> None:
    await append_requests(database, random_history(random.Random(seed), 500))

    assert await faults(database) == []


async def test_a_cost_after_the_deletion_of_its_campaign_has_no_faults(database: Database) -> None:
    deleted = campaign("0")
    held = reserve("1")
    free = cost("0", campaign_id=deleted["id"])
    await record(database, deleted, free, held, follow(held, "cost.released"), follow(deleted, "campaign.deleted"))

    adjusted = follow(free, "cost.adjusted", {"amount": "1", "reason": "After all"})
    await append_requests(database, [request(adjusted), request(follow(held, "cost.settled", {"cost": "2"}))])

    assert await faults(database) == []


async def test_an_extended_hold_counts_and_a_credit_makes_room(database: Database) -> None:
    owner = campaign("10")
    held, spent = reserve("6", campaign_id=owner["id"]), cost("5", campaign_id=owner["id"])
    events = [
        *(owner, held, follow(held, "cost.extended", {"expires_in": 60}), spent),
        *(credit("4", campaign_id=owner["id"]), follow(held, "cost.settled", {"cost": "9"})),
    ]

    over_budget = [receipt.over_budget for receipt in await record(database, *events)]

    assert over_budget == [None, None, None, ["campaign"], None, None]
    assert await faults(database) == []


class CheckedMachine(WorkingStateMachine):
    """Checks in SQL any log that the judge produces."""

    def __init__(self, run: Run, database: Database, seen: set[Any]) -> None:
        super().__init__()
        self.run, self.database, self.seen = run, database, seen

    def teardown(self) -> None:
        self.seen.update(tuple(event.over_budget or ()) for event in self.working_state.events)
        assert self.run(self.checked()) == []

    async def checked(self) -> list[str]:
        events = self.working_state.events
        async with self.database.connection() as connection:
            everything = connection.transaction()
            await everything.start()
            await connection.copy_records_to_table("events", schema_name=SCHEMA, columns=EVENT_COLUMNS, records=events)
            found = [fault async for fault in column_check.find_column_faults(connection, len(events))]
            await everything.rollback()
        return found


def test_sql_computes_the_same_over_budget_as_the_judge_for_any_requests(template: str, server_url: URL) -> None:
    seen: set[Any] = set()
    with loop_in_a_thread() as run:
        database = Database(direct_url(server_url).set(database=template))
        run_state_machine_as_test(
            lambda: CheckedMachine(run, database, seen),
            settings=settings(max_examples=40, stateful_step_count=50, deadline=None),
        )
        run(database.close())

    # Which limits are exceeded is random; OVER covers all of them.
    assert len(seen) > 1


async def test_a_change_without_a_budget_keeps_the_limit(database: Database) -> None:
    opened = campaign("5")
    unchanged = follow(opened, "campaign.budget_changed", {"reason": "unchanged"})

    receipts = await record(database, opened, unchanged, *(cost("3", campaign_id=opened["id"]) for _ in range(2)))

    assert [receipt.over_budget for receipt in receipts] == [None, None, None, ["campaign"]]
    assert await faults(database) == []


async def test_the_limits_of_ancestors_are_checked_as_they_were_at_each_position(database: Database) -> None:
    root = job(budget="5")
    child = job(parent_job_id=root["id"], budget="3")
    leaf, sibling = job(parent_job_id=child["id"]), job(parent_job_id=root["id"])
    held = reserve("2", agent_job_id=leaf["id"])
    log = [
        *(root, child, leaf, sibling),  # 1 to 4
        held,  # 5
        cost("1.5", agent_job_id=leaf["id"]),  # 6: with the hold over the limit of the child
        cost("1.5", agent_job_id=child["id"]),  # 7: exactly at the limit of the root, over that of the child itself
        cost("0.1", agent_job_id=sibling["id"]),  # 8: over the limit of the root
        follow(child, "job.budget_changed", {"reason": "no change"}),  # 9
        cost("0", agent_job_id=leaf["id"]),  # 10
        follow(child, "job.budget_changed", {"budget": None}),  # 11
        follow(root, "job.budget_changed", {"budget": "5.1"}),  # 12
        cost("0", agent_job_id=leaf["id"]),  # 13
        cost("0.1", agent_job_id=root["id"]),  # 14: over the limit of the root itself
        follow(held, "cost.released"),  # 15
        cost("1.9", agent_job_id=child["id"]),  # 16
    ]
    over = {6: ["ancestor"], 7: ["job"], 8: ["ancestor"], 10: ["ancestor"], 14: ["job"]}

    receipts = await record(database, *log)

    assert {receipt.position: receipt.over_budget for receipt in receipts if receipt.over_budget} == over
    assert await faults(database) == []


@pytest.mark.parametrize(("wrong", "position"), [("NULL", 3), ("'{job}'", 3), ("'{ancestor}'", 4), ("'{ancestor}'", 5)])
async def test_a_changed_mark_of_an_ancestor_is_found(
    database: Database, database_url: URL, wrong: str, position: int
) -> None:
    root = job(budget="1")
    child = job(parent_job_id=root["id"])
    await record(database, root, child, cost("2", agent_job_id=child["id"]), cost("0", agent_job_id=root["id"]), cost())
    async with connected(direct_url(database_url)) as connection, connection.transaction():
        await change(connection, "over_budget", wrong, position)

    assert positions(await faults(database)) == {position}
