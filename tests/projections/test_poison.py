"""An event that can never be folded: the worker retries, then pauses, and an operator decides."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import asyncpg
import pytest
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from ledger.database import Database
from ledger.domain.errors import LedgerError
from ledger.log.appender import Appender
from projections import skips
from projections import worker as worker_module
from projections.page import is_events_fault
from projections.rebuild import rebuild
from projections.tables import NAMES
from projections.worker import Worker, fold_page
from tests.conftest import Service
from tests.events import campaign, cost, event, follow
from tests.log.helpers import connected, query, record, until, value
from tests.projections.helpers import folded, folded_up_to, position, running_workers, stored, tables
from tests.projections.poison import cure, failed, paused, poison, runs_again, state

pytestmark = pytest.mark.direct

GOOD = campaign("100")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between the tries of an event."""
    monkeypatch.setattr(worker_module, "RETRY_SECONDS_MIN", 0.0005)


async def unknown_type(database: Database) -> int:
    return await poison(database)


async def newer_version(database: Database) -> int:
    return await poison(database, "cost.recorded", 2, '{"resource_type":"other","cost":"1"}')


async def broken_data(database: Database) -> int:
    return await poison(database, "cost.recorded", 1, '{"resource_type":"other"}')


async def row_deleted_by_hand(database: Database) -> int:
    await fold_page(database)
    await query(database, "DELETE FROM campaigns")
    await record(database, follow(GOOD, "campaign.activated"))
    return await head(database)


async def refused_by_a_check_added_by_hand(database: Database) -> int:
    await query(database, "ALTER TABLE campaigns ADD CONSTRAINT by_hand CHECK (name <> 'Forbidden')")
    await record(database, campaign(name="Forbidden"))
    return await head(database)


async def head(database: Database) -> int:
    return int(await value(database, "SELECT position FROM ledger.log_head"))


Poisoning = Callable[[Database], Awaitable[int]]

DECIDED_BY_AN_OPERATOR: list[tuple[Poisoning, str, str]] = [
    (broken_data, "cost.recorded", "ValidationError: Object missing required field `cost`"),
    (row_deleted_by_hand, "campaign.activated", "AssertionError: an event on a campaign"),
    (refused_by_a_check_added_by_hand, "campaign.created", "CheckViolationError"),
]
FOLDED_BY_A_NEWER_RELEASE: list[tuple[Poisoning, str, str]] = [
    (unknown_type, "cost.imagined", "UnknownEventTypeError: cost.imagined in schema version 1: upgrade"),
    (newer_version, "cost.recorded", "UnknownEventTypeError: cost.recorded in schema version 2: upgrade"),
]


@pytest.mark.parametrize(("poisoning", "type_", "error"), DECIDED_BY_AN_OPERATOR)
async def test_earlier_events_are_folded_and_after_some_tries_the_read_models_pause(
    database: Database, poisoning: Poisoning, type_: str, error: str
) -> None:
    await record(database, GOOD, *(cost() for _ in range(20)))
    at = await poisoning(database)
    await record(database, *(cost() for _ in range(20)))

    async with running_workers(database):
        failure = await paused(database)
        positions = [await position(database)]
        await record(database, cost())
        await asyncio.sleep(worker_module.STANDBY_SECONDS + 0.1)
        positions.append(await position(database))

    assert (failure["position"], failure["type"], positions) == (at, type_, [at - 1] * 2)
    assert error in failure["error"]
    assert await state(database) == ("paused", failure)


@pytest.mark.parametrize(("poisoning", "type_", "error"), FOLDED_BY_A_NEWER_RELEASE)
async def test_an_event_of_a_newer_release_is_retried_forever_until_a_worker_is_upgraded(
    database: Database, monkeypatch: pytest.MonkeyPatch, poisoning: Poisoning, type_: str, error: str
) -> None:
    monkeypatch.setattr(worker_module, "RETRY_SECONDS_MAX", 0.001)
    tries = count_tries(monkeypatch)
    await record(database, GOOD, cost())
    at = await poisoning(database)

    async with running_workers(database):
        await until(lambda: reached(tries, 3 * worker_module.TRIES_MAX))
        status, failure = await state(database)

    assert (status, await position(database)) == ("failing", at - 1)
    assert failure is not None
    assert (failure["position"], failure["type"]) == (at, type_)
    assert error in failure["error"]


def count_tries(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the size of every page that the workers try to fold."""
    sizes: list[int] = []

    async def counted(database: Database, events_max: int, **others: Any) -> int | None:
        sizes.append(events_max)
        return await fold_page(database, events_max, **others)

    monkeypatch.setattr(worker_module, "fold_page", counted)
    return sizes


async def reached(tries: list[int], number: int) -> bool:
    return len(tries) >= number


async def test_it_is_found_by_halving_the_page(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = count_tries(monkeypatch)
    await record(database, *(cost() for _ in range(1_000)))
    await broken_data(database)
    await record(database, *(cost() for _ in range(1_000)))

    async with running_workers(database):
        await paused(database)

    assert await position(database) == 1_000
    assert len(tries) < 60


async def test_the_pauses_between_tries_grow(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = []

    class HastyWorker(Worker):
        async def _back_off(self, seconds: float) -> None:
            pauses.append(seconds)

    monkeypatch.setattr(worker_module, "RETRY_SECONDS_MIN", 0.08)
    await broken_data(database)
    worker = HastyWorker(database)
    running = asyncio.create_task(worker.run())
    await paused(database)
    worker.stop()
    await running

    assert pauses == pytest.approx([0.08, 0.32, 1.28, 5.12])


async def skip(database: Database, reason: str = "Why") -> None:
    async with Appender(database) as appender:
        await skips.skip(database, appender, by="An operator", reason=reason)


@pytest.mark.parametrize("poisoning", [broken_data, unknown_type])
async def test_a_skip_is_an_event_and_the_worker_continues_before_its_next_try(
    database: Database, monkeypatch: pytest.MonkeyPatch, poisoning: Poisoning
) -> None:
    await record(database, GOOD)
    at = await poisoning(database)
    await record(database, cost("3", campaign_id=GOOD["id"]))

    async with running_workers(database) as (worker,):
        failure = await (paused(database) if poisoning is broken_data else failed(database))
        monkeypatch.setattr(worker._retry, "next", lambda _maximum: 600.0)
        # From now on, the next try is ten minutes away.
        await asyncio.sleep(0.2)
        await skip(database)
        await folded_up_to(database, at + 2)

    assert await value(database, "SELECT spend FROM campaigns") == 3
    assert await state(database) == ("running", None)
    (decided,) = (stored_event for stored_event in await stored(database) if stored_event.category == "ledger")
    assert (decided.type, decided.position) == ("ledger.projection_skipped", at + 2)
    skipped = (await all_skips(database))[at]
    assert (skipped.event_type, skipped.by, skipped.reason) == (failure["type"], "An operator", "Why")


async def all_skips(database: Database) -> dict[int, skips.Skip]:
    async with database.connection() as connection:
        return await skips.read_skips(connection)


async def test_a_skipped_event_counts_again_once_it_can_be_folded_and_the_tables_are_rebuilt(
    database: Database,
) -> None:
    await refused_by_a_check_added_by_hand(database)
    async with running_workers(database):
        await paused(database)
        await skip(database)
        await folded_up_to(database, 2)
    without = await value(database, "SELECT count(*) FROM campaigns")
    still_refused = await rebuild(database)

    await query(database, "ALTER TABLE campaigns DROP CONSTRAINT by_hand")
    rebuilt = await rebuild(database)

    assert (without, [one.position for one in still_refused.skipped]) == (0, [1])
    assert (rebuilt.written["campaigns"], rebuilt.skipped) == (1, [])
    assert await tables(database) == folded(await stored(database))


async def test_a_skip_is_refused_while_the_read_models_run(database: Database) -> None:
    await record(database, cost())
    await fold_page(database)

    with pytest.raises(
        skips.NothingToSkipError, match="no event stops the read models: they are running at position 1"
    ):
        await skip(database)

    assert await head(database) == 1


async def test_a_worker_that_has_just_started_tries_even_if_they_are_paused(
    database: Database, database_url: URL
) -> None:
    at = await refused_by_a_check_added_by_hand(database)
    async with running_workers(database):
        await paused(database)
    await query(database, "ALTER TABLE campaigns DROP CONSTRAINT by_hand")

    async with running_workers(database):
        await folded_up_to(database, at)

    assert await state(database) == ("running", None)


async def test_a_worker_that_has_just_started_and_fails_too_does_not_change_the_pause(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await broken_data(database)
    async with running_workers(database):
        failure = await paused(database)
    tries = count_tries(monkeypatch)

    async with running_workers(database):
        await until(lambda: reached(tries, 3))

    assert await state(database) == ("paused", failure)


async def test_a_second_worker_does_not_touch_a_paused_checkpoint(database: Database, database_url: URL) -> None:
    second = Database(database_url)
    async with running_workers(database, second):
        await broken_data(database)
        await paused(database)
        await query(database, "UPDATE ledger.projection_checkpoints SET updated_at = '2000-01-01'")
        await cure_broken_data(database_url)

        await asyncio.sleep(2 * worker_module.STANDBY_SECONDS)
        untouched = await state(database)
        await skips.retry(database)
        await runs_again(database)

    assert untouched[0] == "paused"
    await second.close()


async def cure_broken_data(url: URL) -> None:
    async with connected(url) as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica; DELETE FROM ledger.events")


async def test_any_worker_clears_a_failure_whose_cause_has_gone_even_without_events(
    database: Database, database_url: URL
) -> None:
    await poison(database)
    async with running_workers(database):
        await failed(database)
    await cure(database_url)

    async with running_workers(database):
        await runs_again(database)

    assert await position(database) == 0


async def state_during_an_outage(database: Database, monkeypatch: pytest.MonkeyPatch, statement: str) -> Any:
    """Break the database while there are events to fold; return the state of the read models after many tries."""
    monkeypatch.setattr(worker_module, "OUTAGE_SECONDS_MAX", 0.001)
    await record(database, cost(), cost())
    tries = count_tries(monkeypatch)
    await query(database, statement)
    async with running_workers(database):
        await until(lambda: reached(tries, 4 * worker_module.TRIES_MAX))
        return await state(database)


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("ALTER TABLE budget_entries RENAME TO away", "UndefinedTableError"),
        ("ALTER TABLE budget_entries RENAME cost TO away", "UndefinedColumnError"),
    ],
)
async def test_an_error_of_the_database_is_not_blamed_on_an_event(
    database: Database, monkeypatch: pytest.MonkeyPatch, statement: str, error: str
) -> None:
    status, failure = await state_during_an_outage(database, monkeypatch, statement)

    assert (status, failure["position"], failure["type"]) == ("failing", 0, error)
    with pytest.raises(skips.NothingToSkipError):
        await skip(database)


async def test_a_lock_timeout_is_not_blamed_on_an_event(
    database: Database, database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "BEGIN_PAGE", worker_module.BEGIN_PAGE.replace("'10s'", "'10ms'"))
    async with connected(database_url) as holder:
        await holder.execute("BEGIN; LOCK TABLE budget_entries")

        status, failure = await state_during_an_outage(database, monkeypatch, "SELECT")

    assert (status, failure["position"], failure["type"]) == ("failing", 0, "LockNotAvailableError")


CLOSE_CONNECTIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


async def test_closed_connections_neither_change_a_pause_nor_its_failure(database: Database, database_url: URL) -> None:
    own = Database(database_url)
    await broken_data(database)
    async with connected(database_url) as other, running_workers(own):
        failure = await paused(database)
        for _ in range(10):
            with suppress(asyncpg.PostgresError):
                await other.fetch(CLOSE_CONNECTIONS)
            await asyncio.sleep(0.15)
        text = await other.fetchval("SELECT status || last_error FROM ledger.projection_checkpoints")

    assert text.startswith("paused")
    assert failure["error"][:20] in text
    await own.close()


async def test_a_connection_lost_while_skips_are_read_does_not_stop_the_worker(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = [ConnectionResetError()] * 2
    at = await broken_data(database)
    async with running_workers(database):
        await paused(database)
    await skip(database)

    async def read_skips(connection: Any) -> dict[int, skips.Skip]:
        if lost:
            raise lost.pop()
        return await skips.read_skips(connection)

    monkeypatch.setattr(worker_module, "read_skips", read_skips)
    async with running_workers(database):
        await folded_up_to(database, at + 1)

    assert lost == []


OUTAGES = [
    asyncpg.ReadOnlySQLTransactionError("cannot execute UPDATE in a read-only transaction"),
    asyncpg.DiskFullError("no space left"),
    asyncpg.InternalServerError("could not read block"),
    asyncpg.InvalidCachedStatementError("cached plan must not change result type"),
    asyncpg.OutdatedSchemaCacheError("changed"),
    asyncpg.QueryCanceledError("statement timeout"),
    asyncpg.DeadlockDetectedError("deadlock"),
    asyncpg.ConnectionDoesNotExistError("gone"),
    asyncpg.InterfaceError("closed"),
    asyncpg.UndefinedTableError("missing"),
    asyncpg.InsufficientPrivilegeError("denied"),
    ConnectionResetError(),
    TimeoutError(),
    SQLAlchemyError(),
]
FAULTS = [
    asyncpg.CheckViolationError("check"),
    asyncpg.UniqueViolationError("unique"),
    asyncpg.ForeignKeyViolationError("foreign key"),
    asyncpg.NumericValueOutOfRangeError("overflow"),
    asyncpg.StringDataRightTruncationError("too long"),
    asyncpg.ProgramLimitExceededError("index row size"),
    asyncpg.RaiseError("a trigger"),
    asyncpg.exceptions._base.DataError("invalid input for query argument"),
    AssertionError(),
    KeyError("x"),
    LedgerError("x"),
]


@pytest.mark.parametrize(
    ("error", "fault"),
    [*((error, False) for error in OUTAGES), *((error, True) for error in FAULTS)],
    ids=lambda value: type(value).__name__,
)
def test_only_refused_values_are_blamed_on_an_event(error: Exception, fault: bool) -> None:
    assert is_events_fault(error) is fault


async def test_it_is_shown_over_http_with_type_position_and_error(service: Service) -> None:
    await service.append(cost())
    at = await broken_data(service.database)
    failure = await paused(service.database)

    async with service.client.get("/v1/projections") as answer:
        items = (await answer.json())["items"]
    async with service.client.get("/readyz") as answer:
        status, readiness = answer.status, await answer.json()
    async with service.client.get("/metrics") as answer:
        metrics = await answer.text()

    assert [item["last_error"] for item in items] == [failure] * len(NAMES)
    assert {(item["status"], item["position"], item["head"]) for item in items} == {("paused", at - 1, at)}
    assert (failure["type"], failure["position"]) == ("cost.recorded", at)
    assert status == 503
    assert readiness["projections"].startswith(f"paused at position {at - 1}: cost.recorded at position {at} fails")
    assert "required field" in readiness["projections"]
    lines = metrics.splitlines()
    assert 'ledger_projection_status{status="paused"} 1.0' in lines
    assert 'ledger_projection_status{status="running"} 0.0' in lines
    (stopped_by,) = (line for line in lines if line.startswith("ledger_projection_failed_position{"))
    assert 'type="cost.recorded"' in stopped_by
    assert "required field" in stopped_by
    assert stopped_by.endswith(f" {float(at)}")


async def test_clients_cannot_send_events_of_the_ledger(service: Service) -> None:
    sent = event("ledger.projection_skipped", {"projection": "read_models", "position": 1})

    status, problem = await service.post(sent)

    assert (status, problem["type"]) == (422, "/problems/invalid-event")
    assert problem["errors"][0]["path"] == "$.type"
    assert "can only be appended by the service" in problem["errors"][0]["message"]
    assert await service.head() == 0
