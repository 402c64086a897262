"""ledger verify: exactly what was changed is found, and nothing is changed by looking."""

from typing import Any
from uuid import uuid4

import msgspec
import pytest
from sqlalchemy import URL

from ledger.database import Database
from projections.rebuild import rebuild
from projections.tables import REFERENCED_FIRST
from projections.worker import fold_page
from tests.events import campaign, cost, reserve
from tests.log.helpers import query, record, request, until, value
from tests.projections.helpers import append_requests, sample_history, working
from tests.projections.replaying import (
    Found,
    append_sample_and_fold,
    at_least,
    contents,
    fold_everything,
    relations,
    tamper,
    verified,
    writing,
)
from tests.projections.test_worker_failures import poison

pytestmark = pytest.mark.direct

OTHER = "00000000-0000-4000-8000-00000000000a"

# What a cell is changed to: a value that fits its column and that the story never has.
CHANGED = {
    "name": "'Changed'",
    "description": "'Changed'",
    "title": "'Changed'",
    "content": "content || ' '",
    "error_message": "'Changed'",
    "model_used": "'changed'",
    "provider": "'changed'",
    "currency": "'EUR'",
    "metadata": "'{\"changed\": 1}'",
    "input_data": "'{ }'",
    "output_data": '\'{"a": 1, "b": 2}\'',
    "campaign_id": f"'{OTHER}'",
    "agent_job_id": f"'{OTHER}'",
    "content_type": "'email'",
    "resource_type": "'embedding'",
    "agent_type": "'optimizer'",
    "start_date": "start_date + interval '1 microsecond'",
    "end_date": "'2099-01-01'",
    "started_at": "'2099-01-01'",
    "completed_at": "'2099-01-01'",
    "occurred_at": "occurred_at - interval '1 microsecond'",
    "expires_at": "'2099-01-01'",
    "created_at": "created_at + interval '1 microsecond'",
    "updated_at": "updated_at + interval '1 microsecond'",
    "progress": "0.9999999999",
    "roi": "roi + 0.0000000001",
    "budget": "coalesce(budget, 0) + 0.0000000001",
}
"""Numbers that are not here are moved by the least that there is."""

STATUSES = {
    "campaigns": "'archived'",
    "agent_jobs": "'failed'",
    "content_assets": "'review'",
    "budget_entries": "'expired'",
}
TEXTS = ("metadata", "input_data", "output_data")

COLUMNS = {model.name: model.columns for model in REFERENCED_FIRST}

IS_JOB = "category = 'job' AND state ->> 0 = 'completed'"

CELLS = [(table, column) for table, columns in COLUMNS.items() for column in columns if column != "id"]


def changed(table: str, column: str) -> str:
    if column == "status":
        return STATUSES[table]
    return CHANGED.get(column, f"{column} + {'1' if column in INTEGERS else '0.0000000001'}")


INTEGERS = ("position", "impressions", "clicks", "conversions", "retry_count", "tokens_used")


def test_every_cell_has_a_change() -> None:
    assert {column for _, column in CELLS} - CHANGED.keys() - {*INTEGERS, "status"} == {
        "spend",
        "held",
        "revenue",
        "cost",
    }


@pytest.fixture(scope="module")
async def told(shared_database_url: URL) -> Any:
    """An database on a database with the story, for tests that put back what they change."""
    database = Database(shared_database_url)
    await append_sample_and_fold(database)
    yield database
    await database.close()


@pytest.mark.parametrize(("table", "columns"), COLUMNS.items(), ids=COLUMNS)
async def test_every_changed_cell_is_found_and_nothing_else(
    told: Database, shared_database_url: URL, table: str, columns: tuple[str, ...]
) -> None:
    expected = set()
    kept = f"keep_{table}"
    rows = [row_id for (row_id,) in await query(told, f"SELECT id FROM {table} ORDER BY position")]
    await tamper(
        shared_database_url,
        f"CREATE TABLE ledger.{kept} AS SELECT * FROM {table}",
    )
    constraints = await query(
        told,
        f"SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = '{table}'::regclass "
        "AND contype = 'c'",
    )
    # Not what the checks let pass, but whatever a cell may hold: they are the first thing that a cheat would drop.
    await tamper(shared_database_url, *(f"ALTER TABLE {table} DROP CONSTRAINT {name}" for name, _ in constraints))
    for number, column in enumerate(column for column in columns if column != "id"):
        row_id = rows[number % len(rows)]
        text = f"{column}::text"
        before = await value(told, f"SELECT {text} FROM {table} WHERE id = $1", row_id)
        await tamper(
            shared_database_url, f"UPDATE {table} SET {column} = {changed(table, column)} WHERE id = '{row_id}'"
        )
        after = await value(told, f"SELECT {text} FROM {table} WHERE id = $1", row_id)
        assert before != after, column
        expected.add(Found(table, str(row_id), column, after, before))

    report, found = await verified(told)

    await tamper(
        shared_database_url,
        f"DELETE FROM {table}",
        f"INSERT INTO {table} SELECT * FROM ledger.{kept}",
        f"DROP TABLE ledger.{kept}",
        *(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}" for name, definition in constraints),
    )
    assert found == expected
    assert (report.is_clean, report.faults) == (False, [])
    assert (await verified(told))[1] == set()


async def test_rows_deleted_inserted_or_renamed_are_found_on_both_sides(database: Database, database_url: URL) -> None:
    await append_requests(database, [*sample_history(), request(campaign())])
    await fold_everything(database)
    expected = set()
    for table in COLUMNS:
        first, second, *_ = [str(row_id) for (row_id,) in await query(database, f"SELECT id FROM {table} ORDER BY id")]
        renamed, copied = str(uuid4()), str(uuid4())
        columns = ", ".join(column for column in COLUMNS[table] if column != "id")
        await tamper(
            database_url,
            f"INSERT INTO {table} (id, {columns}) SELECT '{copied}', {columns} FROM {table} WHERE id = '{first}'",
            f"DELETE FROM {table} WHERE id = '{first}'",
            f"UPDATE {table} SET id = '{renamed}' WHERE id = '{second}'",
        )
        expected |= {Found(table, row_id, "row", "missing", "present") for row_id in (first, second)}
        expected |= {Found(table, row_id, "row", "present", "missing") for row_id in (renamed, copied)}

    _, found = await verified(database)

    assert found == expected


JUDGED_BY = {
    "accounts": {
        "spent": ("spent + 0.0000000001", "spent > 0"),
        "held": ("held + 1", "held = 0"),
        "currency": ("'EUR'", "scope = 'campaign'"),
        "budget": ("coalesce(budget, 0) + 1", "scope = 'job'"),
    },
    "holds": {
        "amount": ("amount + 1", "true"),
        "campaign_id": ("NULL", "campaign_id IS NOT NULL"),
        "agent_job_id": (f"'{OTHER}'", "agent_job_id IS NULL"),
        "expires_at": ("expires_at + interval '1 microsecond'", "true"),
    },
    "streams": {
        "version": ("version + 1", "true"),
        "state": ("json_build_array('running', state -> 1, state -> 2, state -> 3, state -> 4, state -> 5)", IS_JOB),
    },
}
"""What each column that appends are judged by is changed to, and where."""


@pytest.mark.parametrize("table", JUDGED_BY)
async def test_what_appends_are_judged_by_is_compared_and_rebuilt(
    database: Database, database_url: URL, table: str
) -> None:
    await append_sample_and_fold(database)
    await record(database, opened := campaign("50"), reserve("2", campaign_id=opened["id"]))
    await fold_everything(database)
    key = "account_id" if table == "accounts" else "stream_id"
    for column, (change, where) in JUDGED_BY[table].items():
        chosen = f"SELECT {key}, {column}::text FROM ledger.{table} WHERE {where} ORDER BY 1 LIMIT 1"
        ((row_id, before),) = await query(database, chosen)
        of_row = f"{key} = '{row_id}' AND {where}"
        await tamper(database_url, f"UPDATE ledger.{table} SET {column} = {change} WHERE {of_row}")

        _, found = await verified(database)
        await rebuild(database)

        ((where_found, found_id, found_column, live, replayed),) = found
        assert (where_found, found_id, found_column) == (f"ledger.{table}", str(row_id), column)
        assert live != before
        assert (replayed or "").replace(" ", "") == (before or "").replace(" ", "")
        assert await query(database, chosen) == [(row_id, replayed)]
        assert (await verified(database))[1] == set()


STATE_PARTS = [("campaign", part) for part in range(4)] + [("job", part) for part in range(6)]
STATE_PARTS += [("content", part) for part in range(3)]


@pytest.mark.parametrize(("category", "part"), STATE_PARTS)
async def test_every_part_of_a_streams_state_is_compared_and_rebuilt(
    told: Database, shared_database_url: URL, category: str, part: int
) -> None:
    alive = f"category = '{category}' AND state ->> 0 <> 'deleted'"
    stream_id = await value(told, f"SELECT stream_id FROM ledger.streams WHERE {alive} ORDER BY version DESC LIMIT 1")
    before = await value(told, "SELECT state::text FROM ledger.streams WHERE stream_id = $1", stream_id)
    parts = msgspec.json.decode(before)
    parts[part] = "changed"
    state = msgspec.json.encode(parts).decode()
    await tamper(shared_database_url, f"UPDATE ledger.streams SET state = '{state}' WHERE stream_id = '{stream_id}'")

    _, found = await verified(told)

    assert {each[:3] for each in found} == {("ledger.streams", str(stream_id), "state")}
    await rebuild(told)
    mended = await value(told, "SELECT state::text FROM ledger.streams WHERE stream_id = $1", stream_id)
    assert msgspec.json.decode(mended) == msgspec.json.decode(before)


@pytest.mark.parametrize("table", ["accounts", "holds", "streams"])
async def test_rows_that_appends_are_judged_by_are_missed_and_noticed(
    database: Database, database_url: URL, table: str
) -> None:
    await append_sample_and_fold(database)
    await record(database, opened := campaign("50"), reserve("2", campaign_id=opened["id"]))
    await fold_everything(database)
    key = "account_id" if table == "accounts" else "stream_id"
    gone = {str(row_id) for (row_id,) in await query(database, f"DELETE FROM ledger.{table} RETURNING {key}")}
    strange = {
        "accounts": f"INSERT INTO ledger.accounts VALUES ('{OTHER}', 'job', 'USD', NULL, 1, 0)",
        "holds": f"INSERT INTO ledger.holds VALUES ('{OTHER}', 1, NULL, NULL, now())",
        "streams": f"INSERT INTO ledger.streams VALUES ('{OTHER}', 'job', 1, '[\"pending\"]')",
    }
    await tamper(database_url, strange[table])

    _, found = await verified(database)

    assert gone
    assert found == {
        *(Found(f"ledger.{table}", row_id, "row", "missing", "present") for row_id in gone),
        Found(f"ledger.{table}", OTHER, "row", "present", "missing"),
    }
    await rebuild(database)
    assert (await verified(database))[1] == set()
    # Whoever appends finds what he needs.
    await record(database, cost("1", campaign_id=opened["id"]))


async def test_looking_changes_nothing(database: Database, database_url: URL) -> None:
    await append_sample_and_fold(database)
    await tamper(database_url, "UPDATE campaigns SET spend = spend + 1", "UPDATE ledger.accounts SET spent = spent + 1")
    before = await contents(database), await relations(database)

    report, _ = await verified(database)

    assert not report.is_clean
    assert (await contents(database), await relations(database)) == before


async def test_an_empty_ledger_is_clean(database: Database) -> None:
    report, found = await verified(database)

    assert (report.is_clean, report.position, report.head, found) == (True, 0, 0, set())


@pytest.mark.parametrize("folded", [0, 1, 30])
async def test_tables_that_lag_behind_are_compared_where_they_stand(database: Database, folded: int) -> None:
    await append_requests(database, sample_history())
    if folded:
        await fold_page(database, folded)
    head = await value(database, "SELECT position FROM ledger.log_head")

    report, found = await verified(database)
    await query(database, "DELETE FROM budget_entries")

    assert (report.is_clean, report.position, report.head, found) == (True, folded, head, set())


async def test_it_is_always_clean_while_a_writer_and_the_worker_run(database: Database, database_url: URL) -> None:
    others = Database(database_url)
    opened = campaign("100000")
    await record(database, opened)
    positions = []

    async with writing(others, opened) as written, working(others):
        for number in range(8):
            await until(lambda target=40 * (number + 1): at_least(others, target))
            report, found = await verified(database)
            positions.append(report.head)
            assert (found, report.faults) == (set(), [])
    await others.close()

    assert positions == sorted(set(positions))
    assert len(written) > 100


LOG_FAULTS = {
    "a gap": (
        ["DELETE FROM ledger.events WHERE position = 5"],
        "position 6 follows 4: positions must have no gaps",
    ),
    "a version": (
        ["UPDATE ledger.events SET version = 77 WHERE position = 4"],
        "has version 77 after 0 (position 4): versions must have no gaps",
    ),
    "a time": (
        ["UPDATE ledger.events SET recorded_at = '2000-01-01' WHERE position = 7"],
        "position 7 was recorded at 2000-01-01T00:00:00+00:00, before its predecessor (2025-01-01T12:00:05+00:00)",
    ),
    "the tail": (
        ["DELETE FROM ledger.events WHERE position > 50"],
        "the log's head is {head}, but its last event has position 50",
    ),
    "the head": (
        ["UPDATE ledger.log_head SET position = position + 3"],
        "the log's head is {more}, but its last event has position {head}",
    ),
    "the head's time": (
        ["UPDATE ledger.log_head SET recorded_at = '2000-01-01'"],
        "the log's head was recorded before its last event",
    ),
    "the checkpoint": (
        ["UPDATE ledger.projection_checkpoints SET position = 1000"],
        "the tables are at position 1,000, past the end of the log at {head}",
    ),
}


@pytest.mark.parametrize("what", LOG_FAULTS)
async def test_a_log_that_breaks_its_own_rules_is_told_what_and_where(
    database: Database, database_url: URL, what: str
) -> None:
    await append_sample_and_fold(database)
    head = await value(database, "SELECT position FROM ledger.log_head")
    statements, fault = LOG_FAULTS[what]
    await tamper(database_url, *statements)

    report, _ = await verified(database)

    assert not report.is_clean
    assert any(fault.format(head=head, more=head + 3) in said for said in report.faults), report.faults


async def test_an_unknown_event_in_the_way_is_a_fault_and_what_comes_before_it_is_compared(
    database: Database,
) -> None:
    opened = campaign()
    await record(database, opened)
    await fold_everything(database)
    at = await poison(database)
    await query(database, "UPDATE campaigns SET name = 'Changed'")

    report, found = await verified(database)

    assert found == {Found("campaigns", opened["id"], "name", "Changed", "A campaign")}
    fault = report.faults[-1]
    assert f"past position {at - 1}: cost.imagined in schema version 1 at position {at}" in fault
