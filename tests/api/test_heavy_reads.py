"""Heavy reads: turns by key, bounded queues, and an end of all work once the client is gone."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import asyncpg
import pytest

from ledger.api import heavy_reads
from ledger.api.app import ROUTES
from ledger.api.heavy_reads import HeavyReads, Turns
from ledger.api.routes import always
from ledger.domain.errors import Overloaded
from tests.api.helpers import slug
from tests.api.test_observing import metrics
from tests.conftest import Service
from tests.events import campaign, cost, follow, job
from tests.log.helpers import connected, head_locked, turns, until

HELD_BACK = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%budget_entries%'
"""

NDJSON = {"Accept": "application/x-ndjson"}


class HeldBack:
    """Statements on `budget_entries`, which wait for a lock of the test."""

    def __init__(self, watcher: "asyncpg.Connection[Any]") -> None:
        self._watcher = watcher

    async def are(self, number: int) -> None:
        """Wait until this many statements wait for the lock."""

        async def reached() -> bool:
            return len(await self._watcher.fetch(HELD_BACK)) == number

        await until(reached)


@asynccontextmanager
async def held_back(service: Service) -> AsyncIterator[HeldBack]:
    """Hold back all statements that read `budget_entries` inside the context."""
    async with (
        connected(service.database_url) as holder,
        connected(service.database_url) as watcher,
        holder.transaction(),
    ):
        await holder.execute("LOCK TABLE budget_entries IN ACCESS EXCLUSIVE MODE")
        yield HeldBack(watcher)


async def work(gate: HeavyReads, key: str, name: str, log: list[str], end: asyncio.Event) -> None:
    async with gate.admit(key) as turns_of_key, turns_of_key.take():
        log.append(name)
        await end.wait()


async def test_a_key_queues_behind_its_own_reads_and_another_passes() -> None:
    gate, log, ends = HeavyReads(), [], [asyncio.Event() for _ in range(4)]
    names = ["busy 1", "busy 2", "busy 3", "other"]
    tasks = [
        asyncio.create_task(work(gate, name.split()[0], name, log, end)) for name, end in zip(names, ends, strict=True)
    ]

    await turns(10)
    assert log == ["busy 1", "other"]
    for end in ends:
        end.set()
        await turns(10)

    assert log == ["busy 1", "other", "busy 2", "busy 3"]
    await asyncio.gather(*tasks)


async def test_with_more_keys_than_turns_each_key_gets_its_turn_in_rotation() -> None:
    gate, log, end = HeavyReads(), [], asyncio.Event()
    tasks = [asyncio.create_task(work(gate, key, f"{key}{number}", log, end)) for key in "abcd" for number in range(3)]

    await turns(10)
    end.set()
    await asyncio.gather(*tasks)

    assert log == ["a0", "b0", "a1", "b1", "c0", "d0", "a2", "b2", "c1", "d1", "c2", "d2"]


async def test_a_key_may_have_half_of_the_open_reads_and_another_key_is_still_admitted() -> None:
    gate = HeavyReads()
    admitted = [gate.admit("busy") for _ in range(heavy_reads.OPEN_MAX // 2)]
    for one in admitted:
        await one.__aenter__()

    with pytest.raises(Overloaded, match="this key has 32 large reads in progress"):
        await gate.admit("busy").__aenter__()
    async with gate.admit("other"):
        pass
    for one in admitted:
        await one.__aexit__(None, None, None)
    async with gate.admit("busy"):
        pass


async def test_a_read_that_waits_too_long_for_its_turn_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, end = HeavyReads(), asyncio.Event()
    running = asyncio.create_task(work(gate, "key", "first", [], end))
    await turns()
    monkeypatch.setattr(heavy_reads, "WAIT_SECONDS_MAX", 0.01)

    with pytest.raises(Overloaded, match="for other reads"):
        await work(gate, "key", "second", [], end)

    end.set()
    await running


async def test_a_turn_ends_after_its_time_and_a_timeout_of_the_database_stays_what_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = HeavyReads()
    with pytest.raises(TimeoutError, match="the database"):
        async with gate.admit("key") as of_key, of_key.take():
            raise TimeoutError("the database")
    monkeypatch.setattr(heavy_reads, "TURN_SECONDS_MAX", 0.01)

    with pytest.raises(Overloaded, match="took longer than"):
        await work(gate, "key", "endless", [], asyncio.Event())

    monkeypatch.undo()
    async with gate.admit("key") as of_key, of_key.take():
        pass


async def test_reads_over_the_share_of_a_key_are_503_with_retry_after(service: Service) -> None:
    statuses = []

    async def spend() -> None:
        async with service.client.get("/v1/spend") as answer:
            statuses.append((answer.status, answer.headers.get("Retry-After")))
            if answer.status == 503:
                assert slug(await answer.json(content_type=None)) == "overloaded"

    share = heavy_reads.OPEN_MAX // 2
    async with held_back(service) as statements:
        waiting = [asyncio.create_task(spend()) for _ in range(share + 5)]

        async def refused() -> bool:
            return len(statuses) == 5

        await until(refused)
        # Of one key, one statement runs at a time.
        await statements.are(1)
        await service.append(cost())
    await asyncio.gather(*waiting)

    assert statuses == [(503, "1")] * 5 + [(200, None)] * share


async def test_a_read_whose_client_disconnects_ends_its_statement_and_its_turn(service: Service) -> None:
    def read(group: str) -> "asyncio.Task[aiohttp.ClientResponse]":
        return asyncio.create_task(service.client.get("/v1/spend", params={"group_by": group}).__aenter__())

    async with held_back(service) as statements:
        running = read("day")
        await statements.are(1)
        # Of the same key, so they get the turn one after the other.
        waiting = [read("provider"), read("model_used")]
        await turns(20)
        for reading in (running, *waiting):
            await statements.are(1)
            reading.cancel()
        await statements.are(0)

    assert (await service.get("/v1/spend")) == {"items": []}
    requests = {name: value for name, value in (await metrics(service.client)).items() if "requests_total" in name}
    assert [value for name, value in requests.items() if "/v1/spend" in name and "499" in name] == [3]


async def test_every_connection_works_after_many_cancelled_reads(service: Service) -> None:
    async with held_back(service) as statements:
        for _ in range(15):
            reading = asyncio.create_task(service.client.get("/v1/spend").__aenter__())
            await statements.are(1)
            reading.cancel()
            await statements.are(0)

    async with asyncio.timeout(20):
        await asyncio.gather(*(service.get("/v1/campaigns") for _ in range(30)))


async def test_an_append_whose_client_disconnects_is_finished(service: Service) -> None:
    sent = cost()

    async def chunks() -> AsyncIterator[bytes]:
        yield json.dumps(sent).encode()

    async with head_locked(service.database_url) as appends_wait:
        posting = asyncio.create_task(
            service.client.post("/v1/events", data=chunks(), headers={"Content-Type": "application/json"}).__aenter__()
        )
        await appends_wait()
        posting.cancel()
        await asyncio.gather(posting, return_exceptions=True)
        await turns(20)

    async def recorded() -> bool:
        return await service.head() == 1

    await until(recorded)


async def test_every_route_of_heavy_reads_works_in_turns(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, queued = campaign(), job()
    spent = cost(campaign_id=opened["id"])
    await service.append(opened, queued, spent, follow(spent, "cost.adjusted", {"amount": "1", "reason": "More"}))
    await service.get("/v1/campaigns")
    taken: list[str] = []
    take = Turns.take

    def counted(self: Turns) -> Any:
        taken.append(self.key)
        return take(self)

    monkeypatch.setattr(Turns, "take", counted)
    heavy = {
        "/v1/spend": {},
        f"/v1/campaigns/{opened['id']}/budget": {},
        f"/v1/agent-jobs/{queued['id']}/tree": {},
        "/v1/log/export": {},
        f"/v1/streams/cost/{spent['id']}": {},
        "/v1/events?type=cost.recorded": {},
        "/v1/events?limit=1000": {},
        "/v1/events": NDJSON,
        f"/v1/campaigns/{opened['id']}/timeline": NDJSON,
        "/v1/budget-entries?sort=cost": {},
        f"/v1/campaigns/{opened['id']}?as_of=3": {},
    }
    for path, headers in heavy.items():
        taken.clear()
        async with service.client.get(path, headers=headers) as answer:
            await answer.read()
            assert answer.status == 200, path
        assert taken, path
    taken.clear()
    async with service.client.post("/v1/prices/reprice", json={}) as repriced:
        assert repriced.status == 200
    assert taken
    for path in ("/v1/events", "/v1/campaigns", f"/v1/campaigns/{opened['id']}", "/v1/budget-entries?limit=500"):
        taken.clear()
        async with service.client.get(path) as answer:
            await answer.read()
        assert not taken, path
    # A route that is added with `always` belongs into the list above.
    assert {route.path for route in ROUTES if route.is_heavy is always} == {
        "/v1/spend",
        "/v1/campaigns/{id}/budget",
        "/v1/agent-jobs/{id}/tree",
        "/v1/prices/reprice",
        "/v1/log/export",
        "/v1/streams/{category}/{stream_id}",
    }


async def test_more_sums_than_a_response_may_have_are_refused(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.api.spend.SUMS_MAX", 2)
    await service.append(*(cost(model_used=f"model {number}") for number in range(3)))
    await service.get("/v1/spend")

    status, problem = await service.problem("/v1/spend", group_by="model_used")

    assert (status, slug(problem)) == (422, "read-too-large")
    assert len((await service.get("/v1/spend", group_by="resource_type"))["items"]) == 1
