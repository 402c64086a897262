"""Observability: log lines with request, key and position; /metrics; limits of request bodies."""

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import URL

from ledger.api import request_bodies
from ledger.database import Database
from tests.api.hostile import raw_connections, request
from tests.api.test_keys import key_header, served, status_of
from tests.cli.helpers import started
from tests.conftest import Service
from tests.events import campaign, cost, reserve
from tests.log.helpers import record, until


async def test_a_log_line_has_request_id_key_and_position(
    database: Database, database_url: URL, tmp_path: Path
) -> None:
    header = await key_header(database, "the writer", "agent")
    settings = {"LEDGER_LOG_LEVEL": "DEBUG", "LEDGER_LOG_FORMAT": "json"}
    async with started(tmp_path, "serve", "--port", "0", database=database_url, **settings) as running:
        async with aiohttp.ClientSession(await running.url(), headers=header) as client:
            named = {"X-Request-ID": "my-request.1"}
            async with client.post("/v1/events", json=[cost(), cost()], headers=named) as answer:
                echoed = answer.headers["X-Request-ID"]
            async with client.get("/nowhere", headers={"X-Request-ID": "forged id"}) as answer:
                request_id = answer.headers["X-Request-ID"]
        await running.stop()
    lines = [json.loads(line) for line in running.errors.read_text().splitlines() if line.startswith("{")]
    lines_by_request = {line["request_id"]: line for line in lines if line["event"] == "responded"}

    appended = lines_by_request["my-request.1"]
    assert echoed == "my-request.1"
    assert (appended["key"], appended["position"], appended["status"]) == ("the writer", "2", 201)
    assert (appended["method"], appended["path"], appended["level"]) == ("POST", "/v1/events", "debug")
    assert appended["seconds"] > 0
    # A request id that could be mistaken in a log is replaced; a key that was not authenticated is not logged.
    assert re.fullmatch("[0-9a-f]{32}", request_id)
    assert "key" not in lines_by_request[request_id]


async def metrics(client: aiohttp.ClientSession) -> dict[str, float]:
    """Return the values of /metrics, by name and labels."""
    async with client.get("/metrics") as answer:
        text = await answer.text()
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    }


async def test_metrics_have_requests_groups_latency_lag_holds_refusals_pool_and_connections(
    service: Service,
) -> None:
    opened = campaign("10")
    await service.append(opened, cost("1", campaign_id=opened["id"]))
    await service.append(reserve("2", campaign_id=opened["id"]))
    for _ in range(3):
        assert (await service.post(reserve("99", campaign_id=opened["id"])))[0] == 402
    assert (await service.post([cost("1", kost=1)], mode="independent"))[0] == 200
    assert (await service.problem("/v1/campaigns", limit="0"))[0] == 400

    async def caught_up() -> dict[str, float] | None:
        found = await metrics(service.client)
        return found if found["ledger_projection_lag_events"] == 0 else None

    found = await until(caught_up)

    # The three refusals are one event, cost.denied, but all of them count.
    assert found["ledger_head_position"] == found["ledger_projection_position"] == 4
    assert found['ledger_requests_total{method="POST",route="/v1/events",status="201"}'] == 2
    assert found['ledger_requests_total{method="POST",route="/v1/events",status="402"}'] == 3
    assert found['ledger_requests_total{method="GET",route="/v1/campaigns",status="400"}'] == 1
    assert found['ledger_refusals_total{problem="budget-exceeded"}'] == 3
    assert found['ledger_refusals_total{problem="invalid-event"}'] == 1
    assert found["ledger_group_events_count"] == found["ledger_append_seconds_count"] == 5
    assert found["ledger_group_events_sum"] == 6
    assert 0 < found["ledger_append_seconds_sum"] < 60
    assert found["ledger_open_holds"] == 1
    assert found["ledger_projection_lag_seconds"] == 0
    assert found['ledger_projection_status{status="running"}'] == 1
    assert found["ledger_pool_connections"] >= 0
    assert found["ledger_connections"] >= 1
    assert found["ledger_connections_turned_away_total"] == 0
    assert found["ledger_log_clock_ahead_seconds"] == 0

    await record(service.database, cost(), now=datetime.now(UTC) + timedelta(days=1))

    assert 86_000 < (await metrics(service.client))["ledger_log_clock_ahead_seconds"] <= 86_400


async def test_unknown_paths_share_one_label(shared: Service) -> None:
    """A label for each invented path would fill the memory."""
    await shared.problem("/invented")
    before = await metrics(shared.client)
    for number in range(20):
        assert (await shared.problem(f"/invented/{number}"))[0] == 404
    before |= await metrics(shared.client)
    after = await metrics(shared.client)

    assert set(after) == set(before)
    assert after['ledger_requests_total{method="GET",route="none",status="404"}'] == 21


POST = "Content-Type: application/json"


async def test_bodies_over_the_share_of_a_key_are_refused_until_others_are_done(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_bodies, "TOTAL_BYTES_MAX", 600_000)
    body = json.dumps([cost(description="x" * 450) for _ in range(400)]).encode()
    assert 200_000 < len(body) < 300_000
    small = json.dumps(cost()).encode()
    admin = await key_header(database, "boss", "admin")
    lines = (POST, f"Authorization: {admin['Authorization']}")

    def sent(of: bytes) -> bytes:
        return request("POST", "/v1/events", *lines, f"Content-Length: {len(of)}")

    async with served(database) as url, raw_connections(url, 3) as (first, second, third):
        await first.send(sent(body) + body[:-1])
        await asyncio.sleep(0.3)
        await second.send(sent(body) + body)
        refused = await second.answer()
        await third.send(sent(small) + small)
        passed = await third.answer()
        await first.send(body[-1:])
        accepted = await first.answer()
        await third.send(sent(body) + body)
        after = await third.answer()

    assert (refused.status, refused.problem, refused.headers["retry-after"]) == (503, "overloaded", "1")
    assert [answer.status for answer in (passed, accepted, after)] == [201, 201, 200]


async def test_slow_bodies_of_one_key_leave_room_for_those_of_another(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_bodies, "TOTAL_BYTES_MAX", 2_000_000)
    batch = json.dumps([cost(description="x" * 450) for _ in range(400)]).encode()
    greedy, modest = [await key_header(database, name, "agent") for name in ("greedy", "modest")]
    slow = request("POST", "/v1/events", POST, f"Authorization: {greedy['Authorization']}", "Content-Length: 500000")

    async with (
        served(database) as url,
        raw_connections(url, 12) as connections,
        aiohttp.ClientSession(url, headers=modest | {"Content-Type": "application/json"}) as client,
    ):
        for connection in connections:
            await connection.send(slow + b" " * 499_999)
        # Two of these bodies fit into the share of the key.
        answering = [asyncio.create_task(connection.answer()) for connection in connections]
        refused = [await task for _, task in zip(range(10), asyncio.as_completed(answering), strict=False)]
        answers = await asyncio.gather(*(status_of(client, "POST", "/v1/events", data=batch) for _ in range(2)))
        for task in answering:
            task.cancel()

    assert {(answer.status, answer.problem) for answer in refused} == {(503, "overloaded")}
    assert sorted(answers) == [200, 201]


async def test_a_body_that_takes_too_long_is_malformed_and_disconnected_clients_free_their_memory(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_bodies, "BODY_SECONDS_MAX", 0.5)
    monkeypatch.setattr(request_bodies, "TOTAL_BYTES_MAX", 600_000)
    admin = await key_header(database, "boss", "admin")
    head = request("POST", "/v1/events", POST, f"Authorization: {admin['Authorization']}", "Content-Length: 250000")

    async def room() -> Any:
        body = json.dumps(cost(description="x")).encode().ljust(250_000)
        return await status_of(client, "POST", "/v1/events", data=body, headers={"Content-Type": "application/json"})

    async with (
        served(database) as url,
        raw_connections(url, 2) as (late, leaving),
        aiohttp.ClientSession(url, headers=admin) as client,
    ):
        await late.send(head + b" " * 200_000)
        answer = await late.answer()
        await leaving.send(head + b" " * 200_000)
        leaving.close()
        async with asyncio.timeout(5):
            while (last := await room()) == 503:
                await asyncio.sleep(0.05)

    assert (answer.status, answer.problem, last) == (400, "malformed", 201)
