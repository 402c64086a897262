"""/healthz and /readyz: what is wrong, in words; outages are 503 until the database is back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from sqlalchemy import URL, text

from ledger.api.app import listen, serving
from ledger.database import Database
from ledger.database.migrations import expected_revision, migrate
from ledger.log.appender import Appender
from tests.api.helpers import NDJSON, eventually, request_for
from tests.conftest import Service
from tests.events import cost, event
from tests.log.helpers import connected

pytestmark = pytest.mark.every_connection


@asynccontextmanager
async def served(database: Database, *, with_worker: bool = True) -> AsyncIterator[aiohttp.ClientSession]:
    """Serve this database; yield a client."""
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    async with (
        serving(database, listener, with_worker=with_worker),
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
    ):
        yield client


async def readiness(client: aiohttp.ClientSession) -> tuple[int, dict[str, Any]]:
    """Return the status and body of /readyz; /healthz must be 200 in any case."""
    async with client.get("/healthz") as answer:
        assert (answer.status, await answer.json()) == (200, {"status": "ok"})
    async with client.get("/readyz") as answer:
        return answer.status, await answer.json(content_type=None)


def has_status(client: aiohttp.ClientSession, status: int) -> Callable[[], Awaitable[dict[str, Any] | None]]:
    """Return a condition for `eventually`: /readyz responds with this status."""

    async def condition() -> dict[str, Any] | None:
        found, body = await readiness(client)
        return body if found == status else None

    return condition


async def test_a_service_with_all_its_parts_is_ready(shared: Service) -> None:
    assert await readiness(shared.client) == (
        200,
        {
            "status": "ok",
            "database": "ok",
            "migrations": "ok",
            "projections": "ok",
            "sealer": "not sealed: no key yet",
            "log": "ok",
            "reverification": {"position": 0, "last_full_pass": None},
        },
    )


async def test_a_service_that_cannot_record_events_is_not_ready_until_it_can(
    database: Database, database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(database_url) as owner, served(database) as client:
        await owner.execute("""
            CREATE FUNCTION pg_temp.refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'no space left on device' USING ERRCODE = '53100'; END $$;
            CREATE TRIGGER refuse BEFORE INSERT ON ledger.cost_events FOR EACH ROW EXECUTE FUNCTION pg_temp.refuse()
        """)
        async with client.post("/v1/events", json=cost()) as answer:
            assert answer.status == 503
        full = await readiness(client)
        with monkeypatch.context() as later:
            later.setattr("ledger.log.locked_recorder.FAILURE_SECONDS", 0.0)
            tried_again, _ = await readiness(client)
        await owner.execute("DROP TRIGGER refuse ON ledger.cost_events")
        async with client.post("/v1/events", json=cost()) as answer:
            assert answer.status == 201
        free, _ = await readiness(client)

    assert (full[0], full[1]["status"]) == (503, "unavailable")
    assert full[1]["database"] == "does not record events: no space left on device (DiskFullError)"
    assert (tried_again, free) == (200, 200)


async def test_an_unmigrated_database_is_reported_with_the_next_step(empty_database_url: URL) -> None:
    database = Database(empty_database_url)
    async with served(database) as client:
        status, body = await readiness(client)

        assert (status, body["status"], body["database"]) == (503, "unavailable", "ok")
        assert "ledger migrate" in body["migrations"]

        await migrate(database)

        await eventually(has_status(client, 200))
        async with client.post("/v1/events", json=cost()) as answer:
            assert answer.status == 201
    await database.close()


async def test_a_database_that_a_newer_release_has_migrated_is_ready_and_that_of_another_program_is_not(
    service: Service,
) -> None:
    found = []
    for revision in (f"{int(expected_revision()) + 1:04}", "ae1027a6acf0"):
        async with service.database.engine.begin() as connection:
            await connection.execute(text(f"UPDATE alembic_version SET version_num = '{revision}'"))
        status, body = await readiness(service.client)
        found.append((status, body["migrations"] == "ok"))

    assert found == [(200, True), (503, False)]


async def test_a_missing_worker_is_reported_by_the_lag(database: Database) -> None:
    def two_minutes_ago() -> datetime:
        return datetime.now(UTC) - timedelta(minutes=2)

    async with served(database, with_worker=False) as client:
        assert (await readiness(client))[0] == 200
        async with Appender(database, clock=two_minutes_ago) as appender:
            await appender.append(request_for(cost()))

        status, body = await readiness(client)

        assert (status, body["status"], body["migrations"]) == (503, "unavailable", "ok")
        assert "behind" in body["projections"]
        assert "worker" in body["projections"]
        async with client.get("/v1/projections") as answer:
            (one, *_) = (await answer.json())["items"]
        assert (one["position"], one["head"], one["lag_events"]) == (0, 1, 1)
        assert 119 < one["lag_seconds"] < 180


async def test_a_failing_worker_is_reported_with_its_position_and_recovers(service: Service) -> None:
    await service.append(cost())
    await service.get("/v1/spend")
    async with service.database.engine.begin() as connection:
        await connection.execute(text("ALTER TABLE budget_entries RENAME TO mislaid"))
    await service.append(cost(), event("cost.recorded", {"resource_type": "other", "cost": "2"}))

    body = await eventually(has_status(service.client, 503))

    assert (body["status"], body["database"]) == ("unavailable", "ok")
    assert "failing at position 1" in body["projections"]
    items = (await (await service.client.get("/v1/projections")).json())["items"]
    assert {(item["status"], item["position"], item["head"]) for item in items} == {("failing", 1, 3)}
    assert items[0]["last_error"]["type"] == "UndefinedTableError"
    assert items[0]["last_error"]["position"] == 0, "no event is to blame, so none can be skipped"
    assert "budget_entries" in items[0]["last_error"]["error"]

    async with service.database.engine.begin() as connection:
        await connection.execute(text("ALTER TABLE mislaid RENAME TO budget_entries"))

    await eventually(has_status(service.client, 200))
    assert (await service.get("/v1/spend"))["items"][0]["cost"] == "4"
    assert (await (await service.client.get("/v1/projections")).json())["items"][0]["last_error"] is None


async def test_an_unreachable_database_is_503_on_every_route_until_it_is_back(
    service: Service, outage: Callable[[bool], Awaitable[None]]
) -> None:
    await service.append(cost())
    paths = ["/v1/events", "/v1/events/1", "/v1/campaigns", "/v1/spend", "/v1/projections", "/v1/spend?min_position=1"]

    await outage(True)
    _, body = await readiness(service.client)
    # A pooler accepts connections and lets them wait until the timeout, so all requests are sent at once.
    async with asyncio.timeout(45):
        answers = await asyncio.gather(
            *(service.client.get(path) for path in paths),
            service.client.get("/v1/events", headers={"Accept": NDJSON["Content-Type"]}),
            service.client.post("/v1/events", json=cost()),
        )
    problems = [await answer.json(content_type=None) for answer in answers]
    await outage(False)

    assert (body["status"], body["database"] == "ok") == ("unavailable", False)
    assert [answer.status for answer in answers] == [503] * len(answers)
    assert {problem["type"] for problem in problems} == {"/problems/database-unavailable"}
    assert all(answer.headers["Retry-After"] for answer in answers)
    await eventually(has_status(service.client, 200))
    await service.append(cost())
    assert (await service.get("/v1/spend"))["items"][0]["entries"] == 2


async def test_a_read_whose_connection_is_terminated_is_503(database: Database, database_url: URL) -> None:
    other = Database(database_url)
    # Without a replica, which would serve the read.
    async with served(database, with_worker=False) as client, other.engine.connect() as holder:
        await holder.execute(text("LOCK TABLE campaigns IN ACCESS EXCLUSIVE MODE"))
        reading = asyncio.create_task(client.get("/v1/campaigns").__aenter__())
        waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"

        async def reader() -> int | None:
            await holder.execute(text("SELECT pg_stat_clear_snapshot()"))
            pid: int | None = await holder.scalar(text(waiting))
            return pid

        pid = await eventually(reader)
        await holder.execute(text(f"SELECT pg_terminate_backend({pid})"))
        answer = await reading
        problem = await answer.json(content_type=None)
    await other.close()

    assert (answer.status, problem["type"]) == (503, "/problems/database-unavailable")
