"""`row_as_of`: one row at a position equals the fold of the log up to it, wherever pages end."""

import random
from collections.abc import Sequence
from uuid import UUID

import msgspec
import pytest

from ledger.database import Database
from ledger.domain.errors import ReadTooLarge
from projections import as_of as as_of_module
from projections.as_of import row_as_of
from projections.replay import ReplayError
from projections.tables import (
    AGENT_JOBS,
    BUDGET_ENTRIES,
    CAMPAIGNS,
    CONTENT_ASSETS,
    NAMES,
    READ_MODELS_BY_CATEGORY,
)
from projections.worker import fold_page
from tests.events import campaign, cost, event, follow, job, reserve
from tests.log.helpers import record
from tests.projections.helpers import append_requests, folded, sample_history, stored
from tests.projections.replaying import skipped
from tests.projections.test_worker import random_history
from tests.projections.test_worker_failures import poison


async def assert_every_row_equals_the_fold(database: Database, positions: Sequence[int]) -> set[str]:
    """Compare every row at these positions with the fold; return the tables that had rows."""
    events = await stored(database)
    compared = set()
    for position in positions:
        expected = folded(events[:position])
        for model, row_id in {(READ_MODELS_BY_CATEGORY[each.category], each.stream_id) for each in events}:
            row = await row_as_of(database, model, row_id, position)
            found = None if row is None else msgspec.structs.asdict(row)
            assert found == expected[model.name].get(row_id), (model.name, row_id, position)
            if found:
                compared.add(model.name)
    return compared


@pytest.mark.parametrize("page_events", [1, 2, 5_000])
async def test_every_row_of_the_sample_history_equals_the_fold(
    database: Database, monkeypatch: pytest.MonkeyPatch, page_events: int
) -> None:
    monkeypatch.setattr(as_of_module, "PAGE_EVENTS_MAX", page_events)
    await append_requests(database, sample_history())
    events = await stored(database)

    # tests/api tries every position, over HTTP.
    compared = await assert_every_row_equals_the_fold(database, [*range(0, len(events), 9), len(events)])

    # A price has no `as_of`: the book has all of its prices.
    assert compared == set(NAMES) - {"prices"}


@pytest.mark.parametrize("seed", range(2))
async def test_every_row_of_a_random_history_equals_the_fold(
    database: Database, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(as_of_module, "PAGE_EVENTS_MAX", 3)
    chance = random.Random(seed)
    await append_requests(database, random_history(chance, 150))
    events = await stored(database)

    await assert_every_row_equals_the_fold(database, [chance.randint(0, len(events)) for _ in range(4)])


async def test_a_job_whose_second_page_begins_with_a_cost_keeps_its_first_page(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(as_of_module, "PAGE_EVENTS_MAX", 2)
    queued = job()
    await record(database, queued, follow(queued, "job.started"), cost("3", agent_job_id=queued["id"]))

    row = await row_as_of(database, AGENT_JOBS, UUID(queued["id"]), 3)

    assert row is not None
    assert msgspec.structs.asdict(row) == folded(await stored(database))["agent_jobs"][UUID(queued["id"])]


async def test_currencies_are_inherited_from_the_campaign_or_the_job_even_after_its_deletion(
    database: Database,
) -> None:
    euros, gone = campaign(currency="EUR"), campaign(currency="EUR")
    of_job, direct, left = job(euros["id"]), reserve("1", campaign_id=euros["id"]), job(gone["id"])
    inherited = cost("1", agent_job_id=of_job["id"])
    await record(database, euros, gone, of_job, direct, left, inherited, follow(gone, "campaign.deleted"))
    late = cost("1", agent_job_id=left["id"])
    await record(database, late)

    rows = [
        await row_as_of(database, model, UUID(opened["id"]), 8)
        for model, opened in (
            (AGENT_JOBS, of_job),
            (AGENT_JOBS, left),
            (BUDGET_ENTRIES, direct),
            (BUDGET_ENTRIES, inherited),
            (BUDGET_ENTRIES, late),
        )
    ]

    assert [getattr(row, "currency", None) for row in rows] == ["EUR"] * 5
    await assert_every_row_equals_the_fold(database, range(9))


async def test_an_id_of_another_read_model_has_no_row(database: Database) -> None:
    opened = campaign()
    queued = job(opened["id"])
    await record(database, opened, queued, cost(agent_job_id=queued["id"]))

    for model in (AGENT_JOBS, CONTENT_ASSETS, BUDGET_ENTRIES):
        assert await row_as_of(database, model, UUID(opened["id"]), 3) is None
    for model in (CAMPAIGNS, CONTENT_ASSETS, BUDGET_ENTRIES):
        assert await row_as_of(database, model, UUID(queued["id"]), 3) is None


async def test_an_event_that_cannot_be_folded_raises_until_it_is_skipped(database: Database) -> None:
    at = await poison(database)
    ((stream_id,),) = [(event.stream_id,) for event in await stored(database)]

    with pytest.raises(ReplayError, match=f"cost.imagined in schema version 1 at position {at} fails"):
        await row_as_of(database, BUDGET_ENTRIES, stream_id, at)

    await skipped(database, at)
    assert await row_as_of(database, BUDGET_ENTRIES, stream_id, at) is None


async def adjusted_entries(database: Database, number: int) -> tuple[str, str]:
    """Record a campaign with two entries, adjusted by turns; return the ids of the campaign and the first entry."""
    opened = campaign()
    entries = [cost("1", campaign_id=opened["id"]) for _ in range(2)]
    adjustments = [
        follow(entries[index % 2], "cost.adjusted", {"amount": "1", "reason": "More"}) for index in range(number)
    ]
    await record(database, opened, *entries, *adjustments)
    return opened["id"], entries[0]["id"]


async def test_a_row_of_more_events_than_the_limit_is_refused_before_any_is_folded(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign_id, entry_id = await adjusted_entries(database, 8)
    monkeypatch.setattr(as_of_module, "EVENTS_MAX", 10)
    assert await row_as_of(database, CAMPAIGNS, UUID(campaign_id), 10) is not None
    assert await row_as_of(database, BUDGET_ENTRIES, UUID(entry_id), 11) is not None

    def must_not_fold(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(as_of_module, "fold_event", must_not_fold)

    with pytest.raises(ReadTooLarge):
        await row_as_of(database, CAMPAIGNS, UUID(campaign_id), 11)


async def test_entries_that_are_adjusted_on_every_page_are_not_folded_again_for_each_page(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign_id, _ = await adjusted_entries(database, 30)
    monkeypatch.setattr(as_of_module, "PAGE_EVENTS_MAX", 4)
    monkeypatch.setattr(as_of_module, "EVENTS_MAX", 33)

    # 33 events, each folded once: one more fold would pass the limit.
    row = await row_as_of(database, CAMPAIGNS, UUID(campaign_id), 33)

    assert row is not None
    assert msgspec.structs.asdict(row) == folded(await stored(database))["campaigns"][UUID(campaign_id)]


async def test_events_folded_again_for_later_pages_count_for_the_limit(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign_id, _ = await adjusted_entries(database, 30)
    monkeypatch.setattr(as_of_module, "PAGE_EVENTS_MAX", 1)
    monkeypatch.setattr(as_of_module, "EVENTS_MAX", 33)

    with pytest.raises(ReadTooLarge):
        await row_as_of(database, CAMPAIGNS, UUID(campaign_id), 33)


@pytest.mark.parametrize("page_events", [2, 5_000])
async def test_the_rows_of_a_tree_equal_the_fold_whether_the_tables_have_its_jobs_or_not(
    database: Database, monkeypatch: pytest.MonkeyPatch, page_events: int
) -> None:
    monkeypatch.setattr(as_of_module, "PAGE_EVENTS_MAX", page_events)
    gone = campaign(currency="EUR")
    root = job(gone["id"])
    child = job(parent_job_id=root["id"], input_data={"a": 1})
    await record(database, gone, root, child, follow(gone, "campaign.deleted"))
    await fold_page(database)
    ran = {"agent_type": "coder", "input_data": {}, "status": "completed", "parent_job_id": child["id"]}
    leaf, late = event("job.recorded", ran), job(parent_job_id=child["id"])
    held = reserve("4", agent_job_id=late["id"])
    costs = [cost(str(number), agent_job_id=each["id"]) for number, each in enumerate((root, child, leaf), 1)]
    await record(database, leaf, late, held, *costs, follow(held, "cost.settled", {"cost": "3"}))

    await assert_every_row_equals_the_fold(database, range(5, 12))

    row = await row_as_of(database, AGENT_JOBS, UUID(root["id"]), 11)
    assert row is not None
    assert (row.currency, row.cost, row.tree_cost) == ("EUR", 1, 9)
