"""`ledger replay`: the tables at a point in time, complete and like the live ones, or no schema.

LEDGER_TEST_POSITIONS sets how many random positions of each log are replayed.
"""

import asyncio
import os
import random
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import URL

from ledger.database import Database
from ledger.domain.errors import Malformed
from projections import replay as replay_module
from projections.replay import ReplayError
from projections.snapshots import SnapshotError, replay_into
from tests.events import campaign, cost
from tests.log.helpers import query, record, value
from tests.projections.helpers import NOON, append_requests, folded, sample_history, stored, tables
from tests.projections.replaying import append_sample_and_fold, contents, locked, relations, tamper
from tests.projections.test_worker import DELETION, random_history
from tests.projections.test_worker_failures import poison

pytestmark = pytest.mark.direct

POSITIONS = int(os.environ.get("LEDGER_TEST_POSITIONS", "5"))


async def replayed(database: Database, until: Any) -> Any:
    """Replay into a schema, read its tables, and drop it."""
    await replay_into(database, "as_was", until)
    found = await tables(database, "as_was")
    await query(database, "DROP SCHEMA as_was CASCADE")
    return found


async def test_at_positions_of_the_sample_history_it_equals_the_fold(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "FOLD_PAGE_EVENTS_MAX", 7)
    await append_requests(database, sample_history())
    events = await stored(database)

    deletions = [event.position for event in events if event.type.endswith(".deleted")]
    for position in {0, 1, *range(3, len(events), 5), *deletions, len(events)}:
        assert await replayed(database, position) == folded(events[:position]), position


@pytest.mark.parametrize("seed", range(2))
async def test_at_random_positions_it_equals_the_fold(
    database: Database, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    await append_requests(database, random_history(chance, 300))
    events = await stored(database)
    deletions = [event.position for event in events if event.type.endswith(".deleted")]

    for position in [*deletions[:4], *(chance.randint(0, len(events)) for _ in range(POSITIONS))]:
        monkeypatch.setattr(replay_module, "FOLD_PAGE_EVENTS_MAX", chance.choice([20, 50, 20_000]))
        assert await replayed(database, position) == folded(events[:position]), position


@pytest.mark.parametrize("page_events", [1, 3])
async def test_references_to_a_row_deleted_on_a_later_page_are_null(
    database: Database, monkeypatch: pytest.MonkeyPatch, page_events: int
) -> None:
    monkeypatch.setattr(replay_module, "FOLD_PAGE_EVENTS_MAX", page_events)
    for event in DELETION:
        await record(database, event)
    events = await stored(database)

    for position in range(4, len(events) + 1):
        assert await replayed(database, position) == folded(events[:position]), position


async def test_a_time_is_inclusive_and_may_be_between_two_events_or_before_all(database: Database) -> None:
    await append_requests(database, sample_history())
    events = await stored(database)
    second, microsecond = timedelta(seconds=1), timedelta(microseconds=1)

    for time in (
        NOON - microsecond,
        NOON,
        NOON + microsecond,
        NOON + 10 * second - microsecond,
        NOON + 10 * second,
        NOON + timedelta(days=1),
    ):
        reached = [event for event in events if event.recorded_at <= time]

        snapshot = await replay_into(database, "as_was", time)

        assert (snapshot.position, await tables(database, "as_was")) == (len(reached), folded(reached))
        await query(database, "DROP SCHEMA as_was CASCADE")


async def test_events_of_the_same_microsecond_are_all_included_or_none(database: Database) -> None:
    await record(database, campaign(), campaign(), campaign(), now=NOON)
    await record(database, campaign(), now=NOON + timedelta(microseconds=1))

    times = [NOON + timedelta(microseconds=offset) for offset in (-1, 0, 1)]
    positions = [(await replay_into(database, f"as_was_{n}", time)).position for n, time in enumerate(times)]

    assert positions == [0, 3, 4]


SHAPES = {
    "columns": """
        SELECT attrelid::regclass::text, attnum, attname, format_type(atttypid, atttypmod), attnotnull,
            pg_get_expr(adbin, adrelid), attcollation::regcollation::text, attidentity, attgenerated
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid AND relkind = 'r'
        LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE relnamespace = '{schema}'::regnamespace AND attnum > 0 AND relname <> 'alembic_version'
    """,
    "constraints": """
        SELECT conrelid::regclass::text, conname, contype, pg_get_constraintdef(oid), convalidated, confrelid::regclass
        FROM pg_constraint WHERE connamespace = '{schema}'::regnamespace
            AND conrelid::regclass::text NOT LIKE '%alembic_version'
    """,
    "indexes": """
        SELECT tablename, indexname, indexdef FROM pg_indexes
        WHERE schemaname = '{schema}' AND tablename <> 'alembic_version'
    """,
    "kinds": """
        SELECT relname, relkind, relpersistence FROM pg_class
        WHERE relnamespace = '{schema}'::regnamespace AND relname !~ '^alembic_version' AND relkind <> 'v'
    """,
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_its_tables_have_the_shape_of_the_live_ones_and_refer_to_each_other(
    database: Database, shape: str
) -> None:
    await append_sample_and_fold(database)
    await replay_into(database, "as_was", 20)

    async def found(schema: str) -> list[str]:
        rows = await query(database, SHAPES[shape].format(schema=schema))
        return sorted(str(row).replace("as_was.", "").replace("public.", "") for row in rows)

    live = await found("public")
    assert len(live) >= 4
    assert await found("as_was") == live
    referred = (
        "SELECT DISTINCT confrelid::regclass::text FROM pg_constraint WHERE connamespace = 'as_was'::regnamespace"
    )
    names = {name for (name,) in await query(database, f"{referred} AND contype = 'f'")}
    assert names == {"as_was.campaigns", "as_was.agent_jobs"}


async def test_the_live_tables_do_not_change(database: Database) -> None:
    await append_sample_and_fold(database)
    before = await contents(database)

    await replay_into(database, "as_was", 20)

    assert await contents(database) == before
    comment = await value(database, "SELECT obj_description('as_was'::regnamespace)")
    assert comment == "The ledger as of position 20, recorded 2025-01-01T12:00:19.000000Z"


BAD_NAMES = [
    "public",
    "ledger",
    "pg_catalog",
    "pg_temp",
    "pg_mine",
    "information_schema",
    "",
    "Then",
    "1st",
    "a b",
    "a-b",
    "a;DROP SCHEMA ledger CASCADE",
    'a"b',
    "a'b",
    "a.b",
    "ü",
    "a\n",
    "a" * 51,
    "select",
    "user",
    "as_was_replaying",
]


@pytest.mark.parametrize("name", BAD_NAMES)
async def test_a_name_that_cannot_be_a_new_schema_is_refused(empty_replay: Database, name: str) -> None:
    before = await relations(empty_replay)

    with pytest.raises(SnapshotError, match="cannot be the schema"):
        await replay_into(empty_replay, name, 0)

    assert await relations(empty_replay) == before


@pytest.fixture(scope="module")
async def empty_replay(shared_database_url: URL) -> Any:
    database = Database(shared_database_url)
    yield database
    await database.close()


async def test_the_name_of_a_role_is_refused_since_it_would_hide_the_live_tables(empty_replay: Database) -> None:
    role = await value(empty_replay, "SELECT current_user::text")

    with pytest.raises(SnapshotError):
        await replay_into(empty_replay, role, 0)


async def test_the_longest_name_and_unreserved_words_are_accepted(database: Database) -> None:
    for name in ("a" * 50, "_", "name", "q4_2025"):
        assert (await replay_into(database, name, 0)).schema == name


async def test_an_existing_schema_is_not_touched(database: Database) -> None:
    await query(database, "CREATE SCHEMA mine")
    await query(database, "CREATE TABLE mine.own (id integer)")
    before = await relations(database)

    with pytest.raises(SnapshotError, match="the schema mine exists"):
        await replay_into(database, "mine", 0)

    assert await relations(database) == before


async def test_a_schema_with_the_building_name_that_no_replay_made_is_not_touched(database: Database) -> None:
    await query(database, "CREATE SCHEMA as_was_replaying")
    await query(database, "CREATE TABLE as_was_replaying.own (id integer)")
    before = await relations(database)

    with pytest.raises(SnapshotError, match="as_was_replaying"):
        await replay_into(database, "as_was", 0)

    assert await relations(database) == before


@pytest.mark.parametrize("until", [4, 10**17, NOON + timedelta(days=365 * 900)])
async def test_a_point_in_time_past_the_log_is_refused(database: Database, until: Any) -> None:
    await record(database, campaign(), campaign(), campaign(), now=NOON)
    before = await relations(database)

    with pytest.raises(Malformed):
        await replay_into(database, "as_was", until)

    assert await relations(database) == before


async def test_an_empty_ledger_is_replayed_to_empty_tables(database: Database) -> None:
    for name, until in (("by_position", 0), ("by_time", NOON)):
        snapshot = await replay_into(database, name, until)

        assert (snapshot.position, snapshot.recorded_at) == (0, None)
        assert not any((await tables(database, name)).values())


async def test_an_event_that_cannot_be_folded_leaves_no_schema(database: Database) -> None:
    await record(database, campaign())
    at = await poison(database)
    await record(database, campaign())
    before = await relations(database)

    with pytest.raises(ReplayError, match=f"cost.imagined in schema version 1 at position {at} fails"):
        await replay_into(database, "as_was", at + 1)

    assert await relations(database) == before
    assert (await replay_into(database, "as_was", at - 1)).position == at - 1


async def test_a_second_replay_into_the_same_schema_is_refused(database: Database, database_url: URL) -> None:
    await append_sample_and_fold(database)
    other = Database(database_url)
    async with locked(database_url, "LOCK TABLE ledger.events IN ACCESS EXCLUSIVE MODE") as another_waits:
        first = asyncio.create_task(replay_into(database, "as_was", 30))
        await another_waits()

        with pytest.raises(SnapshotError, match="another replay into as_was is running"):
            await replay_into(other, "as_was", 20)
    assert (await first).position == 30
    await other.close()


async def test_a_cancelled_replay_leaves_no_schema(
    database: Database, database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "FOLD_PAGE_EVENTS_MAX", 5)
    await append_sample_and_fold(database)
    before = await relations(database)
    reached = asyncio.Event()
    running = asyncio.create_task(replay_into(database, "as_was", 40, lambda position: reached.set()))
    await reached.wait()

    running.cancel()
    (ended,) = await asyncio.gather(running, return_exceptions=True)

    assert isinstance(ended, asyncio.CancelledError)
    assert await relations(database) == before


async def test_changes_of_live_rows_do_not_affect_it(database: Database, database_url: URL) -> None:
    await record(database, opened := campaign(), cost("2", campaign_id=opened["id"]))
    await tamper(database_url, "UPDATE ledger.accounts SET spent = 77", "DELETE FROM campaigns")

    assert await replayed(database, 2) == folded(await stored(database))
