"""Skipped events: verify reports them, replays skip them too, and balances include them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ledger.database import Database
from ledger.domain.catalogue import CATALOGUE
from projections import worker as worker_module
from projections.rebuild import rebuild
from projections.snapshots import replay_into
from tests.events import campaign, content, cost, follow, job, reserve
from tests.log.helpers import query, record, value
from tests.projections.helpers import running_workers, tables
from tests.projections.replaying import contents, skipped, verified

pytestmark = pytest.mark.direct


@asynccontextmanager
async def unknown_type(monkeypatch: pytest.MonkeyPatch, name: str) -> AsyncIterator[None]:
    """Remove an event type from the catalogue while inside; restore it in its place, since the order is documented."""
    complete = dict(CATALOGUE)
    del CATALOGUE[name]
    try:
        with monkeypatch.context() as patch:
            patch.setattr(worker_module, "RETRY_SECONDS_MAX", 0.02)
            yield
    finally:
        CATALOGUE.clear()
        CATALOGUE.update(complete)


async def folded_skipping(database: Database) -> list[int]:
    """Run the worker to the end of the log, skipping every event that stops it; return their positions."""
    positions: list[int] = []
    head = await value(database, "SELECT max(position) FROM ledger.events")
    status = "SELECT position, (last_error ->> 'position')::bigint FROM ledger.projection_checkpoints"
    async with running_workers(database):
        while (row := (await query(database, status))[0])[0] < head:
            reached, failed_at = row
            if failed_at == reached + 1 and failed_at not in positions:
                await skipped(database, failed_at)
                positions.append(failed_at)
            await asyncio.sleep(0.005)
    return positions


async def test_a_skipped_cost_is_reported_and_the_balances_still_include_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = campaign("10")
    spent = cost("4", campaign_id=opened["id"])
    await record(database, opened, spent, follow(spent, "cost.adjusted", {"amount": "1", "reason": "More"}))
    await record(database, reserve("2", campaign_id=opened["id"]))
    async with unknown_type(monkeypatch, "cost.adjusted"):
        positions = await folded_skipping(database)

        report, found = await verified(database)
        rebuilt = await rebuild(database)

        assert (positions, [skip.position for skip in report.skipped], found) == ([3], [3], set())
        assert [skip.position for skip in rebuilt.skipped] == [3]
        assert await query(database, "SELECT spent, held FROM ledger.accounts") == [(5, 2)]
        assert await query(database, "SELECT spend FROM campaigns") == [(4,)]


async def test_a_skipped_event_counts_again_once_a_release_can_fold_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = campaign("10")
    await record(database, opened, cost("4", campaign_id=opened["id"]))
    async with unknown_type(monkeypatch, "cost.recorded"):
        await folded_skipping(database)

    report, found = await verified(database)
    rebuilt = await rebuild(database)

    assert (report.skipped, rebuilt.skipped) == ([], [])
    assert {(each.table, each.column) for each in found} >= {("campaigns", "spend"), ("budget_entries", "row")}
    assert await query(database, "SELECT spend FROM campaigns") == [(4,)]
    assert (await verified(database))[0].is_clean


@pytest.mark.parametrize("name", ["job.queued", "campaign.created"])
async def test_events_that_depend_on_a_skipped_one_are_skipped_by_replays_too(
    database: Database, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    opened = campaign("10")
    queued = job(opened["id"])
    spent = cost("4", agent_job_id=queued["id"])
    written = content(agent_job_id=queued["id"])
    await record(database, opened, queued, spent, follow(spent, "cost.adjusted", {"amount": "1", "reason": "More"}))
    await record(database, written, follow(queued, "job.started"), cost("2"))
    async with unknown_type(monkeypatch, name):
        positions = await folded_skipping(database)
        before = await contents(database)

        report, found = await verified(database)
        rebuilt = await rebuild(database)
        await replay_into(database, "as_was", report.position)

        assert len(positions) > 4
        assert ([skip.position for skip in report.skipped], found, report.faults) == (positions, set(), [])
        assert [skip.position for skip in rebuilt.skipped] == positions
        after = await contents(database)
        assert {table for table in before if before[table] != after[table]} == {"ledger.projection_checkpoints"}
        assert await tables(database, "as_was") == await tables(database)
