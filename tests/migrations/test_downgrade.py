"""Downgrades: none deletes data without confirmation, and tables that come back are folded again."""

from typing import Any

import pytest
from sqlalchemy import URL

from ledger.database import Database
from ledger.domain.access import Role
from ledger.keys import create_key
from tests.events import campaign, content, cost, credit, event, follow, job, price, reserve
from tests.log.helpers import query, record, value
from tests.migrations.helpers import HEAD, alembic, objects, revision, run_alembic
from tests.projections.helpers import folded, stored, tables
from tests.projections.replaying import fold_everything, verified

pytestmark = pytest.mark.direct

CHECKPOINT = "SELECT position, status FROM ledger.projection_checkpoints"


async def test_a_downgrade_that_would_delete_events_or_keys_needs_confirmation(
    database: Database, database_url: URL
) -> None:
    await record(database, campaign(), cost(), price())
    async with database.connection() as connection:
        await create_key(connection, "reporting", Role.VIEWER)
    before = await objects(database_url)

    refused = await alembic(database_url, "downgrade", "base")
    unconfirmed = await alembic(database_url, "-x", "delete-events=no", "downgrade", "base")
    kept = (await objects(database_url), await revision(database_url), await value(database, EVENTS))
    confirmed = await alembic(database_url, "-x", "delete-events=yes", "downgrade", "base")

    lost = "ledger.api_keys, ledger.events, ledger.idempotency_secret"
    for result in (refused, unconfirmed):
        assert result.code == 1
        assert f"would delete everything in {lost}; nothing was changed" in result.err
        assert "alembic -x delete-events=yes downgrade" in result.err
        assert "Traceback" not in result.err
    assert kept == (before, HEAD, 3)
    assert confirmed.code == 0, confirmed.err
    assert not any(name.startswith("p ledger.") for name in await objects(database_url))


EVENTS = "SELECT count(*) FROM ledger.events"


@pytest.mark.parametrize("newer", ["cost.extended", "cost.credited"])
async def test_a_downgrade_is_refused_while_earlier_releases_could_not_read_an_event(
    database: Database, database_url: URL, newer: str
) -> None:
    held = reserve()
    await record(database, held, follow(held, newer, {"expires_in": 60}) if newer == "cost.extended" else credit())

    refused = await alembic(database_url, "downgrade", "0014")

    assert (refused.code, await revision(database_url)) == (1, HEAD)
    assert "the event at position 2 cannot be read by an earlier release; nothing was changed" in refused.err


async def test_an_empty_ledger_can_be_downgraded_without_confirmation(database_url: URL) -> None:
    await run_alembic(database_url, "downgrade", "base")

    assert await revision(database_url) is None


async def test_down_to_the_log_and_up_again_folds_every_event_again(database: Database, database_url: URL) -> None:
    opened = campaign()
    await record(database, opened, job(opened["id"]), cost(campaign_id=opened["id"]))
    await fold_everything(database)
    before = await tables(database)

    await run_alembic(database_url, "downgrade", "0001")
    await run_alembic(database_url, "upgrade", "head")
    checkpoint = await query(database, CHECKPOINT)
    await fold_everything(database)

    assert checkpoint == [(0, "running")]
    assert await tables(database) == before == folded(await stored(database))


OPENED = campaign()


@pytest.mark.parametrize(
    "newer",
    [
        campaign(None),
        campaign(labels={"team": "growth"}),
        job(agent_type="researcher"),
        job(agent_name="Ada"),
        content(content_type="podcast"),
        cost(resource_type="tool"),
        cost("0.00000000875"),
        cost(provider="p" * 101),
        cost(usage={"input_tokens": 1}),
        credit(),
        follow(OPENED, "campaign.budget_changed", {"reason": "unchanged"}),
    ],
    ids=[
        "no limit",
        "labels",
        "agent",
        "name of an agent",
        "content",
        "resource",
        "decimals",
        "long name",
        "usage",
        "credit",
        "same limit",
    ],
)
async def test_a_downgrade_is_refused_while_an_event_is_stored_that_earlier_releases_cannot_read(
    database: Database, database_url: URL, newer: dict[str, Any]
) -> None:
    await record(database, OPENED, newer)
    await fold_everything(database)

    refused = await alembic(database_url, "-x", "delete-events=yes", "downgrade", "0012")
    kept = (await revision(database_url), await value(database, EVENTS))
    deleted = await alembic(database_url, "-x", "delete-events=yes", "downgrade", "base")

    assert (refused.code, refused.err) == (1, f"Error: {CANNOT_BE_READ}\n")
    assert kept == (HEAD, 2)
    assert deleted.code == 0, deleted.err
    assert await revision(database_url) is None


CANNOT_BE_READ = (
    "the event at position 2 cannot be read by an earlier release; nothing was changed. Next: restore a backup from "
    "before the upgrade, or stay on this release"
)


@pytest.mark.parametrize("kind", ["parent", "recorded", "budget", "started"])
async def test_a_downgrade_is_refused_while_events_of_trees_of_jobs_are_stored(
    database: Database, database_url: URL, kind: str
) -> None:
    queued = job()
    ran = {"agent_type": "analyst", "input_data": {}, "status": "completed"}
    newer = {
        "parent": job(parent_job_id=queued["id"]),
        "recorded": event("job.recorded", ran),
        "budget": follow(queued, "job.budget_changed", {"budget": None}),
        "started": follow(queued, "job.completed", {"started_at": "2025-01-01T00:00:00Z"}),
    }
    await record(database, queued, newer[kind])

    refused = await alembic(database_url, "-x", "delete-events=yes", "downgrade", BEFORE_TREES)

    assert (refused.code, refused.err) == (1, f"Error: {CANNOT_BE_READ}\n")
    assert await revision(database_url) == HEAD


@pytest.mark.parametrize("kind", ["price", "recorded", "settled"])
async def test_a_downgrade_is_refused_while_prices_or_costs_without_an_amount_are_stored(
    database: Database, database_url: URL, kind: str
) -> None:
    hold = reserve()
    by_usage = {"provider": "openai", "model_used": "m", "usage": {"input_tokens": 1}}
    newer = {
        "price": price(),
        "recorded": event("cost.recorded", {"resource_type": "llm_api", **by_usage}),
        "settled": follow(hold, "cost.settled", by_usage),
    }
    await record(database, hold, newer[kind])

    refused = await alembic(database_url, "-x", "delete-events=yes", "downgrade", BEFORE_PRICES)

    assert (refused.code, refused.err) == (1, f"Error: {CANNOT_BE_READ}\n")
    assert await revision(database_url) == HEAD


BEFORE_PRICES = "0017"


async def test_states_of_jobs_lose_their_place_in_a_tree_and_are_still_clean_after_the_upgrade(
    database: Database, database_url: URL
) -> None:
    queued = job(budget="5")
    await record(database, queued, cost(agent_job_id=queued["id"]))
    await fold_everything(database)

    await run_alembic(database_url, "downgrade", BEFORE_TREES)
    states = await query(database, "SELECT json_array_length(state) FROM ledger.streams")
    await run_alembic(database_url, "upgrade", "head")
    report, _ = await verified(database)
    await record(database, job(parent_job_id=queued["id"]))

    assert states == [(6,)]
    assert report.is_clean, report
    assert (await verified(database))[1] == set()


BEFORE_TREES = "0015"
