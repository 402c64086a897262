"""`ledger verify` finds exactly the cells and rows that were changed, and changes nothing."""

from typing import Any
from uuid import uuid4

import msgspec
import pytest
from sqlalchemy import URL

from ledger.database import Database
from projections.rebuild import rebuild
from projections.tables import READ_MODELS_BY_NAME, REFERENCED_FIRST
from projections.verify import VerificationReport
from projections.worker import fold_page
from tests.events import campaign, cost, follow, reserve
from tests.log.helpers import query, record, request, until, value
from tests.projections.helpers import append_requests, running_workers, sample_history
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

# The new value of a changed cell: it fits the column, and the sample history does not have it.
CHANGED = {
    "content": "content || ' '",
    "currency": "'EUR'",
    "input_data": "'{ }'",
    "output_data": '\'{"a": 1, "b": 2}\'',
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
    "progress": "0.999999999999999999",
}

CHANGED_BY_KIND = {
    "id": f"'{OTHER}'",
    "time": "coalesce({column}, '2099-01-01') + interval '1 microsecond'",
    "money": "coalesce({column}, 0) + 0.000000000000000001",
    "integer": "coalesce({column}, 0) + 1",
    "boolean": "NOT {column}",
    "json": "'{{\"changed\": 1}}'",
    "text": "'Changed'",
}
"""The new value in other columns; a number is changed by the smallest amount possible."""

STATUSES = {
    "campaigns": "'archived'",
    "agent_jobs": "'failed'",
    "content_assets": "'review'",
    "budget_entries": "'expired'",
}

COLUMNS = {model.name: model.columns for model in REFERENCED_FIRST}

IS_JOB = "category = 'job' AND state ->> 0 = 'completed'"

CELLS = [(table, column) for table, columns in COLUMNS.items() for column in columns if column != "id"]


def changed(table: str, column: str) -> str:
    if column == "status":
        return STATUSES[table]
    kind = READ_MODELS_BY_NAME[table].kinds[column]
    return CHANGED.get(column, CHANGED_BY_KIND[kind].format(column=column))


def test_every_cell_has_a_change() -> None:
    assert all(changed(table, column) for table, column in CELLS)


@pytest.fixture(scope="module")
async def sample(shared_database_url: URL) -> Any:
    """A database with the sample history, for tests that undo their changes."""
    database = Database(shared_database_url)
    await append_sample_and_fold(database)
    yield database
    await database.close()


@pytest.mark.parametrize(("table", "columns"), COLUMNS.items(), ids=COLUMNS)
async def test_exactly_the_changed_cells_are_found(
    sample: Database, shared_database_url: URL, table: str, columns: tuple[str, ...]
) -> None:
    expected = set()
    backup = f"backup_{table}"
    rows = [row_id for (row_id,) in await query(sample, f"SELECT id FROM {table} ORDER BY position")]
    await tamper(
        shared_database_url,
        f"CREATE TABLE ledger.{backup} AS SELECT * FROM {table}",
    )
    constraints = await query(
        sample,
        f"SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = '{table}'::regclass "
        "AND contype = 'c'",
    )
    # Without the checks, which an attacker would drop first, a cell may hold any value of its type.
    await tamper(shared_database_url, *(f"ALTER TABLE {table} DROP CONSTRAINT {name}" for name, _ in constraints))
    for number, column in enumerate(column for column in columns if column != "id"):
        row_id = rows[number % len(rows)]
        text = f"{column}::text"
        before = await value(sample, f"SELECT {text} FROM {table} WHERE id = $1", row_id)
        await tamper(
            shared_database_url, f"UPDATE {table} SET {column} = {changed(table, column)} WHERE id = '{row_id}'"
        )
        after = await value(sample, f"SELECT {text} FROM {table} WHERE id = $1", row_id)
        assert before != after, column
        expected.add(Found(table, str(row_id), column, after, before))

    report, found = await verified(sample)

    await tamper(
        shared_database_url,
        f"DELETE FROM {table}",
        f"INSERT INTO {table} SELECT * FROM ledger.{backup}",
        f"DROP TABLE ledger.{backup}",
        *(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}" for name, definition in constraints),
    )
    assert found == expected
    dropped = sorted(f"constraint {name} on public.{table}" for name, _ in constraints)
    assert sorted(fault.partition(": ")[0] for fault in report.faults) == dropped
    assert not report.is_clean
    assert await verified(sample) == (VerificationReport(report.position, report.head), set())


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


DECISION_STATE = {
    "accounts": {
        "spent": ("spent + 0.000000000000000001", "spent > 0"),
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
"""The new value of each changed column, and the condition for the row that is changed."""


@pytest.mark.parametrize("table", DECISION_STATE)
async def test_the_state_that_appends_are_judged_by_is_compared_and_rebuilt(
    database: Database, database_url: URL, table: str
) -> None:
    await append_sample_and_fold(database)
    await record(database, opened := campaign("50"), reserve("2", campaign_id=opened["id"]))
    await fold_everything(database)
    key = "account_id" if table == "accounts" else "stream_id"
    for column, (change, where) in DECISION_STATE[table].items():
        chosen = f"SELECT {key}, {column}::text FROM ledger.{table} WHERE {where} ORDER BY 1 LIMIT 1"
        ((row_id, before),) = await query(database, chosen)
        of_row = f"{key} = '{row_id}' AND {where}"
        await tamper(database_url, f"UPDATE ledger.{table} SET {column} = {change} WHERE {of_row}")

        _, found = await verified(database)
        await rebuild(database)

        ((found_table, found_id, found_column, live, replayed),) = found
        assert (found_table, found_id, found_column) == (f"ledger.{table}", str(row_id), column)
        assert live != before
        assert (replayed or "").replace(" ", "") == (before or "").replace(" ", "")
        assert await query(database, chosen) == [(row_id, replayed)]
        assert (await verified(database))[1] == set()


STATE_PARTS = [("campaign", part) for part in range(4)] + [("job", part) for part in range(6)]
STATE_PARTS += [("content", part) for part in range(3)]


@pytest.mark.parametrize(("category", "part"), STATE_PARTS)
async def test_every_part_of_a_streams_state_is_compared_and_rebuilt(
    sample: Database, shared_database_url: URL, category: str, part: int
) -> None:
    alive = f"category = '{category}' AND state ->> 0 <> 'deleted'"
    stream_id = await value(sample, f"SELECT stream_id FROM ledger.streams WHERE {alive} ORDER BY version DESC LIMIT 1")
    before = await value(sample, "SELECT state::text FROM ledger.streams WHERE stream_id = $1", stream_id)
    parts = msgspec.json.decode(before)
    parts[part] = "changed"
    state = msgspec.json.encode(parts).decode()
    await tamper(shared_database_url, f"UPDATE ledger.streams SET state = '{state}' WHERE stream_id = '{stream_id}'")

    _, found = await verified(sample)

    assert {each[:3] for each in found} == {("ledger.streams", str(stream_id), "state")}
    await rebuild(sample)
    corrected = await value(sample, "SELECT state::text FROM ledger.streams WHERE stream_id = $1", stream_id)
    assert msgspec.json.decode(corrected) == msgspec.json.decode(before)


@pytest.mark.parametrize("table", ["accounts", "holds", "streams"])
async def test_missing_and_extra_rows_of_that_state_are_found_and_rebuilt(
    database: Database, database_url: URL, table: str
) -> None:
    await append_sample_and_fold(database)
    await record(database, opened := campaign("50"), reserve("2", campaign_id=opened["id"]))
    await fold_everything(database)
    key = "account_id" if table == "accounts" else "stream_id"
    deleted = {str(row_id) for (row_id,) in await query(database, f"DELETE FROM ledger.{table} RETURNING {key}")}
    unknown = {
        "accounts": f"INSERT INTO ledger.accounts VALUES ('{OTHER}', 'job', 'USD', NULL, 1, 0)",
        "holds": f"INSERT INTO ledger.holds VALUES ('{OTHER}', 1, NULL, NULL, now())",
        "streams": f"INSERT INTO ledger.streams VALUES ('{OTHER}', 'job', 1, '[\"pending\"]')",
    }
    await tamper(database_url, unknown[table])

    _, found = await verified(database)

    assert deleted
    assert found == {
        *(Found(f"ledger.{table}", row_id, "row", "missing", "present") for row_id in deleted),
        Found(f"ledger.{table}", OTHER, "row", "present", "missing"),
    }
    await rebuild(database)
    assert (await verified(database))[1] == set()
    # Appends have the state they need.
    await record(database, cost("1", campaign_id=opened["id"]))


async def test_a_verification_changes_nothing(database: Database, database_url: URL) -> None:
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
async def test_tables_behind_the_log_are_compared_at_their_position(database: Database, folded: int) -> None:
    await append_requests(database, sample_history())
    if folded:
        await fold_page(database, folded)
    head = await value(database, "SELECT position FROM ledger.log_head")

    report, found = await verified(database)
    await query(database, "DELETE FROM budget_entries")

    assert (report.is_clean, report.position, report.head, found) == (True, folded, head, set())


async def test_it_is_always_clean_while_events_are_appended_and_folded(database: Database, database_url: URL) -> None:
    others = Database(database_url)
    opened = campaign("100000")
    await record(database, opened)
    positions = []

    async with writing(others, opened) as written, running_workers(others):
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
    "a schema version": (
        ["UPDATE ledger.events SET schema_version = 1 WHERE position = 8"],
        "position 8: job.queued in schema version 1 follows version 2: the version of a type must not fall",
    ),
    "the tail": (
        ["DELETE FROM ledger.events WHERE position > 50"],
        "the log's head is {head}, but its last event has position 50",
    ),
    "the head": (
        ["UPDATE ledger.log_head SET position = position + 3"],
        "the log's head is {more}, but its last event has position {head}",
    ),
    "the head's time, too early": (
        ["UPDATE ledger.log_head SET recorded_at = '2000-01-01'"],
        "the log's head says that the last event was recorded at 2000-01-01T00:00:00+00:00, but it was at 2025-",
    ),
    "the head's time, too late": (
        ["UPDATE ledger.log_head SET recorded_at = recorded_at + interval '1 microsecond'"],
        "the log's head says that the last event was recorded at 2025-01-01T12:",
    ),
    "the checkpoint": (
        ["UPDATE ledger.projection_checkpoints SET position = 1000"],
        "the tables are at position 1,000, past the end of the log at {head}",
    ),
}


@pytest.mark.parametrize("what", LOG_FAULTS)
async def test_a_fault_of_the_log_is_named_with_its_position(database: Database, database_url: URL, what: str) -> None:
    await append_sample_and_fold(database)
    head = await value(database, "SELECT position FROM ledger.log_head")
    statements, fault = LOG_FAULTS[what]
    await tamper(database_url, *statements)

    report, _ = await verified(database)

    assert not report.is_clean
    assert any(fault.format(head=head, more=head + 3) in each for each in report.faults), report.faults


async def test_an_event_of_unknown_type_is_a_fault_and_the_events_before_it_are_compared(
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


@pytest.mark.parametrize("pages", [1, 3])
async def test_an_entry_that_outlives_its_campaign_names_none_and_is_clean(database: Database, pages: int) -> None:
    opened = campaign("9")
    held = reserve("5", campaign_id=opened["id"])
    unchanged = follow(opened, "campaign.budget_changed", {"reason": "unchanged"})
    ended = [follow(held, "cost.released"), unchanged, follow(opened, "campaign.deleted")]
    later = [follow(held, "cost.settled", {"cost": "7"})]
    for number, events in enumerate(([opened, held], ended, later), 1):
        await record(database, *events)
        if pages == 3 or number == 3:
            await fold_everything(database)

    rows = await query(database, "SELECT campaign_id, cost FROM budget_entries")
    account = await query(database, "SELECT spent, budget FROM ledger.accounts")

    assert (rows, account) == ([(None, 7)], [(7, 9)])
    report, differences = await verified(database)
    assert (report.is_clean, differences) == (True, set())
