"""A page that cannot be folded: nothing is written, the failure is recorded, and the worker retries."""

import asyncio

import pytest
from sqlalchemy import URL

from ledger.database import Database
from projections import worker as worker_module
from projections.tables import NAMES
from projections.worker import Worker, fold_page
from tests.conftest import Service
from tests.events import campaign, cost
from tests.log.helpers import connected, query, record, value
from tests.projections.helpers import folded, folded_up_to, position, running_workers, stored, tables
from tests.projections.poison import cure, failed, poison, runs_again, state


async def test_an_event_that_cannot_be_folded_stops_the_read_models_and_is_named(database: Database) -> None:
    at = await poison(database)

    async with running_workers(database):
        error = await failed(database)

    assert (error["position"], error["type"]) == (at, "cost.imagined")
    assert "UnknownEventTypeError" in error["error"]
    assert "upgrade this release" in error["error"]
    assert await position(database) == 0


async def test_later_events_wait_and_nothing_is_partly_applied(database: Database) -> None:
    opened = campaign()
    await record(database, opened)
    async with running_workers(database):
        await folded_up_to(database, 1)
        await poison(database)
        await record(database, cost(campaign_id=opened["id"]))

        await failed(database)

    assert await query(database, "SELECT spend FROM campaigns") == [(0,)]
    assert await value(database, "SELECT count(*) FROM budget_entries") == 0


async def test_events_before_it_are_folded(database: Database) -> None:
    opened = campaign()
    await record(database, opened, cost("3", campaign_id=opened["id"]))
    at = await poison(database)
    await record(database, cost("4", campaign_id=opened["id"]))

    async with running_workers(database):
        error = await failed(database)
        await folded_up_to(database, at - 1)

    assert (error["position"], error["type"]) == (at, "cost.imagined")
    assert await query(database, "SELECT spend FROM campaigns") == [(3,)]


async def test_once_it_can_be_folded_the_read_models_advance_and_the_failure_is_cleared(
    database: Database, database_url: URL
) -> None:
    opened = campaign()
    await record(database, opened)
    await poison(database)
    async with running_workers(database):
        await failed(database)
        await cure(database_url)
        await record(database, cost("4", campaign_id=opened["id"]))

        await runs_again(database)
        await folded_up_to(database, 3)

    assert await query(database, "SELECT spend FROM campaigns") == [(4,)]
    assert await tables(database) == folded(await stored(database))


async def test_any_worker_that_folds_the_next_page_clears_the_failure(database: Database, database_url: URL) -> None:
    await poison(database)
    async with running_workers(database):
        await failed(database)
    await cure(database_url)
    await record(database, cost())

    folded_events = await fold_page(database)

    assert (folded_events, await state(database)) == (1, ("running", None))


async def test_a_failure_without_an_event_is_cleared_once_its_cause_has_gone(
    database: Database, database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "BEGIN_PAGE", worker_module.BEGIN_PAGE.replace("'10s'", "'10ms'"))
    async with connected(database_url) as holder:
        await holder.execute("BEGIN; LOCK TABLE ledger.events IN ACCESS EXCLUSIVE MODE")
        async with running_workers(database):
            error = await failed(database)
            await holder.execute("COMMIT")

            await runs_again(database)

    assert error["type"] == "LockNotAvailableError"


async def test_a_failing_worker_can_be_stopped(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "IDLE_SECONDS_MIN", 600)
    monkeypatch.setattr(worker_module, "RETRY_SECONDS_MAX", 600)
    await poison(database)
    worker = Worker(database)
    running = asyncio.create_task(worker.run())
    await failed(database)

    worker.stop()

    await asyncio.wait_for(running, 5)


async def test_the_failure_is_shown_over_http_and_the_service_is_not_ready(service: Service) -> None:
    at = await poison(service.database)

    await failed(service.database)

    async with service.client.get("/v1/projections") as answer:
        items = (await answer.json())["items"]
    async with service.client.get("/readyz") as answer:
        status, readiness = answer.status, await answer.json()
    assert [item["name"] for item in items] == list(NAMES)
    assert {item["status"] for item in items} == {"failing"}
    assert [item["last_error"]["position"] for item in items] == [at] * len(NAMES)
    assert (status, readiness["database"], readiness["migrations"]) == (503, "ok", "ok")
    assert "failing" in readiness["projections"]
