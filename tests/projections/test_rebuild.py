"""`ledger rebuild` corrects the rows that differ from the log, and only those, while the service runs."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import URL

from ledger.database import Database
from projections import rebuild as rebuild_module
from projections.rebuild import DependentTableError, RebuildRunningError, rebuild
from projections.replay import ReplayError
from projections.tables import NAMES, READ_MODELS_BY_NAME
from projections.worker import fold_page
from tests.events import campaign, cost, follow, job
from tests.log.helpers import connected, query, record, until, value
from tests.projections.helpers import folded, folded_up_to, position, running_workers, stored, tables
from tests.projections.replaying import (
    append_sample_and_fold,
    at_least,
    contents,
    fold_everything,
    locked,
    tamper,
    verified,
    writing,
)
from tests.projections.test_worker_failures import cure, poison

pytestmark = pytest.mark.direct

# First a change of each table of `NAMES`.
CORRUPTIONS = [
    "UPDATE campaigns SET spend = spend + 1, name = 'Changed', held = held + 5",
    "UPDATE agent_jobs SET cost = cost + 1, input_data = '{}', output_data = NULL",
    "UPDATE content_assets SET title = 'Changed', metadata = '[1]'",
    "UPDATE budget_entries SET description = 'Changed', agent_job_id = NULL",
    "UPDATE prices SET rates = '{}', withdrawn = NOT withdrawn",
    "DELETE FROM budget_entries WHERE status = 'settled'",
    "UPDATE cost_postings SET amount = amount + 1",
    "DELETE FROM denied_holds",
    "DELETE FROM content_assets WHERE status = 'published'",
    "UPDATE agent_jobs SET id = gen_random_uuid() WHERE status = 'completed'",
    "INSERT INTO campaigns (id, name, budget, currency, start_date, created_at, updated_at, position)"
    " SELECT gen_random_uuid(), 'Inserted', 1, 'USD', now(), now(), now(), 1 FROM generate_series(1, 3)",
]

DEPENDENT = """
SELECT relacl::text, relkind::text FROM pg_class WHERE relname IN ('campaigns', 'spend_by_name') ORDER BY relname
"""
CONSTRAINTS = """
SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated FROM pg_constraint
WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2
"""


async def test_every_changed_row_is_corrected_and_no_other_is_written(database: Database, database_url: URL) -> None:
    await append_sample_and_fold(database)
    before = await contents(database)
    await tamper(database_url, *CORRUPTIONS)

    rebuilt = await rebuild(database)
    again = await rebuild(database)

    corrected = await contents(database)
    assert {name for name in before if before[name] != corrected[name]} == {"ledger.projection_checkpoints"}
    assert await tables(database) == folded(await stored(database))
    assert {name: count for name, count in rebuilt.removed.items() if count} == {"campaigns": 3, "agent_jobs": 2}
    assert all(rebuilt.written.values())
    assert (sum(again.written.values()), sum(again.removed.values())) == (0, 0)


async def test_views_grants_and_foreign_keys_stay(database: Database, database_url: URL) -> None:
    await append_sample_and_fold(database)
    role = f"reader_{uuid4().hex[:8]}"
    await query(database, f"CREATE ROLE {role}")
    await query(database, f"GRANT SELECT ON campaigns TO {role}")
    await query(database, "CREATE VIEW spend_by_name AS SELECT name, spend FROM campaigns")
    dependent, constraints = await query(database, DEPENDENT), await query(database, CONSTRAINTS)
    await tamper(database_url, *CORRUPTIONS)

    await rebuild(database)

    assert (await query(database, DEPENDENT), await query(database, CONSTRAINTS)) == (dependent, constraints)
    assert len(dependent) == 2
    assert await query(database, "SELECT * FROM spend_by_name") == await query(
        database, "SELECT name, spend FROM campaigns"
    )
    await query(database, f"DROP OWNED BY {role}")
    await query(database, f"DROP ROLE {role}")


SPEND_AND_ENTRIES = """
SELECT campaigns.spend, coalesce((SELECT sum(cost) FROM budget_entries WHERE campaign_id = campaigns.id), 0),
    (SELECT sum(cost) FROM agent_jobs WHERE campaign_id = campaigns.id), campaigns.name
FROM campaigns
"""


@asynccontextmanager
async def reading(url: URL) -> AsyncIterator[tuple[list[Any], list[float]]]:
    """Read while inside; yields the rows that were read, and the seconds that each read took."""
    seen: list[Any] = []
    seconds: list[float] = []
    stopping = asyncio.Event()

    async def read() -> None:
        async with connected(url) as connection:
            while not stopping.is_set():
                started = time.perf_counter()
                rows = await connection.fetch(SPEND_AND_ENTRIES)
                seconds.append(time.perf_counter() - started)
                seen.extend(tuple(row) for row in rows)
                await asyncio.sleep(0.002)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(2):
            tasks.create_task(read())
        try:
            yield seen, seconds
        finally:
            stopping.set()


async def test_readers_see_all_of_it_or_nothing_and_no_event_is_lost_while_the_worker_runs(
    database: Database, database_url: URL
) -> None:
    opened = campaign("100000")
    await record(database, opened)
    others = Database(database_url)
    async with writing(others, opened) as written, running_workers(others):
        await until(lambda: at_least(others, 300))
        # The three tables are wrong by the same 7: a state in between would not add up.
        await tamper(
            database_url,
            "SELECT FROM ledger.projection_checkpoints FOR UPDATE",
            "UPDATE campaigns SET name = 'Changed', spend = spend + 7",
            "UPDATE budget_entries SET cost = cost + 7, status = 'settled', held = 0"
            " WHERE id = (SELECT id FROM budget_entries WHERE agent_job_id IS NOT NULL ORDER BY id LIMIT 1)",
            "UPDATE agent_jobs SET cost = cost + 7"
            " WHERE id = (SELECT agent_job_id FROM budget_entries WHERE agent_job_id IS NOT NULL ORDER BY id LIMIT 1)",
        )
        async with reading(database_url) as (seen, seconds):
            await until(lambda: _is_true(any(name == "Changed" for *_, name in seen)))
            before = len(written)
            rebuilt = await rebuild(database)
            await until(lambda: _is_true(len(written) > before + 30 and seen[-1][3] == "A campaign"))
        await folded_up_to(others, written[-1].position)
    await others.close()

    print(f"{len(seconds)} reads, the slowest {max(seconds) * 1000:.1f} ms; {len(written)} events written")
    assert {name for *_, name in seen} == {"Changed", "A campaign"}
    assert [state for state in seen if not state[0] == state[1] == state[2]] == []
    assert rebuilt.written["campaigns"] >= 1
    assert len({receipt.id for receipt in written}) == await value(database, "SELECT count(*) - 1 FROM ledger.events")
    report, found = await verified(database)
    assert (report.faults, found) == ([], set())


async def _is_true(condition: bool) -> bool:
    return condition


@pytest.mark.parametrize("table", NAMES)
async def test_one_table_can_be_rebuilt_alone(database: Database, database_url: URL, table: str) -> None:
    await append_sample_and_fold(database)
    before = await tables(database)
    await tamper(database_url, *CORRUPTIONS[: len(NAMES)])
    corrupted = await tables(database)

    rebuilt = await rebuild(database, [table])

    corrected = await tables(database)
    assert corrupted[table] != before[table]
    assert {name: corrected[name] == before[name] for name in NAMES} == {name: name == table for name in NAMES}
    journals = {"cost_postings", "denied_holds"} if table == "budget_entries" else set()
    assert rebuilt.written.keys() == rebuilt.removed.keys() == {table} | journals


async def test_a_row_whose_job_is_missing_requires_the_other_table(database: Database, database_url: URL) -> None:
    await append_sample_and_fold(database)
    await tamper(database_url, "DELETE FROM agent_jobs", "DELETE FROM budget_entries")
    before = await contents(database)

    with pytest.raises(DependentTableError) as refusal:
        await rebuild(database, ["budget_entries"])

    assert "budget_entries cannot be rebuilt alone" in refusal.value.detail
    assert 'is not present in table "agent_jobs"' in refusal.value.detail
    assert await contents(database) == before
    await rebuild(database)
    assert (await verified(database))[1] == set()


@pytest.mark.parametrize(
    ("table", "other", "change"),
    [
        ("agent_jobs", "budget_entries", "UPDATE budget_entries SET agent_job_id = '{unknown}'"),
        ("campaigns", "content_assets", "UPDATE content_assets SET campaign_id = '{unknown}'"),
    ],
)
async def test_a_wrong_row_that_others_refer_to_is_not_deleted_alone(
    database: Database, database_url: URL, table: str, other: str, change: str
) -> None:
    await append_sample_and_fold(database)
    unknown = str(uuid4())
    first = f"(SELECT id FROM {table} ORDER BY id LIMIT 1)"
    columns = ", ".join(column for column in READ_MODELS_BY_NAME[table].columns if column != "id")
    await tamper(
        database_url,
        f"INSERT INTO {table} (id, {columns}) SELECT '{unknown}', {columns} FROM {table} WHERE id = {first}",
        change.format(unknown=unknown),
    )
    before = await contents(database)

    with pytest.raises(DependentTableError, match=f"{table} cannot be rebuilt alone: rows of {other} refer to rows"):
        await rebuild(database, [table])

    assert await contents(database) == before
    await rebuild(database)
    assert (await verified(database))[1] == set()


async def test_events_folded_during_the_comparison_are_not_lost(
    database: Database, database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = campaign()
    await record(database, opened)
    await fold_everything(database)
    # The worker folds the next events with the wrong currency, into rows that did not exist during the comparison.
    await tamper(database_url, "UPDATE campaigns SET currency = 'EUR'")
    await record(database, job(opened["id"]), cost("1", campaign_id=opened["id"]), campaign())
    collect_differing_ids = rebuild_module.differences.collect_differing_ids

    async def collect_while_the_worker_runs(*arguments: Any) -> None:
        await collect_differing_ids(*arguments)
        await fold_everything(database)
        assert await value(database, "SELECT currency FROM agent_jobs") == "EUR"

    monkeypatch.setattr(rebuild_module.differences, "collect_differing_ids", collect_while_the_worker_runs)

    rebuilt = await rebuild(database)

    assert rebuilt.position == await position(database) == 4
    assert await tables(database) == folded(await stored(database))


async def test_a_second_rebuild_is_refused_while_the_first_runs(database: Database, database_url: URL) -> None:
    await append_sample_and_fold(database)
    await tamper(database_url, *CORRUPTIONS)
    other = Database(database_url)
    async with locked(database_url, "SELECT FROM ledger.projection_checkpoints FOR UPDATE") as another_waits:
        first = asyncio.create_task(rebuild(database))
        await another_waits()

        with pytest.raises(RebuildRunningError, match="another rebuild is running"):
            await rebuild(other)

    await first
    await rebuild(other)
    await other.close()
    assert (await verified(database))[1] == set()


async def test_an_empty_ledger_is_rebuilt_to_empty_tables(database: Database, database_url: URL) -> None:
    await tamper(database_url, CORRUPTIONS[-1])

    rebuilt = await rebuild(database)

    assert (rebuilt.position, sum(rebuilt.removed.values())) == (0, 3)
    assert await value(database, "SELECT count(*) FROM campaigns") == 0


async def test_a_checkpoint_past_the_end_is_reset_so_that_no_event_is_missed(
    database: Database, database_url: URL
) -> None:
    await append_sample_and_fold(database)
    await tamper(database_url, "UPDATE ledger.projection_checkpoints SET position = 1000")

    await rebuild(database)

    await record(database, campaign())
    assert await fold_page(database) == 1
    assert (await verified(database))[0].is_clean


async def test_a_worker_stopped_by_a_changed_row_continues(database: Database, database_url: URL) -> None:
    opened = campaign()
    await record(database, opened)
    await fold_everything(database)
    await tamper(database_url, "UPDATE campaigns SET id = gen_random_uuid()")
    await record(database, follow(opened, "campaign.activated"))
    async with running_workers(database):
        await until(lambda: query(database, "SELECT FROM ledger.projection_checkpoints WHERE status <> 'running'"))

        await rebuild(database)

        await folded_up_to(database, 2)
    assert await tables(database) == folded(await stored(database))


async def test_an_event_of_unknown_type_stops_it_and_nothing_is_changed(database: Database, database_url: URL) -> None:
    await record(database, campaign())
    at = await poison(database)
    await tamper(
        database_url,
        f"UPDATE ledger.projection_checkpoints SET position = {at}",
        "UPDATE campaigns SET name = 'Changed'",
    )
    before = await contents(database)

    with pytest.raises(ReplayError, match=f"cost.imagined in schema version 1 at position {at} fails"):
        await rebuild(database)

    assert await contents(database) == before


async def test_an_event_of_unknown_type_past_the_checkpoint_leaves_only_balances_uncompared(
    database: Database, database_url: URL
) -> None:
    await append_sample_and_fold(database)
    await poison(database)
    await tamper(database_url, *CORRUPTIONS, "UPDATE ledger.accounts SET spent = spent + 1")

    rebuilt = await rebuild(database)

    assert rebuilt.not_compared is not None
    assert "cost.imagined" in rebuilt.not_compared
    await cure(database_url)
    _, found = await verified(database)
    assert {each.table for each in found} == {"ledger.accounts"}
