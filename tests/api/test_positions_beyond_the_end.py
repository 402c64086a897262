"""Positions beyond the end of the log belong to another log: they are refused everywhere."""

import asyncio
from typing import Any

import pytest
from yarl import URL

from ledger.api import live_feed
from tests.api.helpers import eventually, slug
from tests.api.sse import open_stream
from tests.conftest import Service
from tests.events import campaign, cost

NDJSON = {"Accept": "application/x-ndjson"}
SOMETHING = "11111111-1111-4111-8111-111111111111"

READS: list[tuple[str, dict[str, str]]] = [
    ("/v1/events/stream?after={}", {}),
    ("/v1/events/stream", {"Last-Event-ID": "{}"}),
    ("/v1/events/stream?after=0", {"Last-Event-ID": "{}"}),
    ("/v1/events?after={}", {}),
    ("/v1/events?until={}", {}),
    ("/v1/events?after={}", NDJSON),
    ("/v1/events?until={}", NDJSON),
    ("/v1/events", {"Ledger-Min-Position": "{}"}),
    ("/v1/campaigns/{campaign}/timeline?after={}", {}),
    ("/v1/campaigns/{campaign}/timeline?until={}", NDJSON),
    ("/v1/streams/campaign/{campaign}", {"Ledger-Min-Position": "{}"}),
    ("/v1/campaigns/{campaign}?as_of={}", {}),
    ("/v1/campaigns/{campaign}?min_position={}", {}),
    ("/v1/campaigns/{campaign}/budget?min_position={}", {}),
    ("/v1/budget-entries?min_position={}", {}),
    ("/v1/spend", {"Ledger-Min-Position": "{}"}),
    ("/v1/log/export?after={}", {}),
    ("/v1/log/export?until={}", {}),
]


@pytest.fixture
async def head(shared: Service) -> int:
    """Append a campaign, and a cost; return the position of the last event."""
    opened = campaign()
    await shared.append(opened)
    (receipt,) = await shared.append(cost())
    return int(receipt["position"])


async def read(service: Service, path: str, headers: dict[str, str], position: int) -> tuple[int, dict[str, Any]]:
    """Read a path with this position; return the status, and the problem if there is one."""
    opened = (await service.get("/v1/campaigns", limit=1))["items"][0]["id"]
    address = URL(path.format(position, campaign=opened), encoded=True)
    sent = {name: value.format(position) for name, value in headers.items()}
    async with service.client.get(address, headers=sent) as answer:
        return answer.status, await answer.json() if answer.content_type.endswith("problem+json") else {}


@pytest.mark.parametrize(("path", "headers"), READS)
async def test_a_position_beyond_the_end_is_malformed_and_the_end_is_not(
    shared: Service, head: int, path: str, headers: dict[str, str]
) -> None:
    at_end, _ = await read(shared, path, headers, head)
    beyond = [await read(shared, path, headers, position) for position in (head + 1, 2**63 - 1)]

    assert at_end == 200
    for status, problem in beyond:
        # A point in time has at most 18 digits.
        if "as_of" in path and "neither" in problem["detail"]:
            continue
        assert (status, slug(problem)) == (400, "malformed")
        assert problem["detail"].startswith(f"the log ends at position {head};")


@pytest.mark.parametrize("path", ["position={}", "position=1&size={}"])
async def test_a_proof_of_an_event_beyond_the_end_is_malformed(service: Service, path: str) -> None:
    async with service.database.connection() as connection:
        await connection.execute("UPDATE ledger.log_checkpoint SET note = ''")
    await service.append(cost(), cost())

    not_sealed, _ = await read_proof(service, path.format(2))
    status, problem = await read_proof(service, path.format(3))

    assert not_sealed == 404
    assert (status, problem["detail"][:30]) == (400, "the log ends at position 2; po")


async def read_proof(service: Service, query: str) -> tuple[int, dict[str, Any]]:
    return await service.problem(f"/v1/log/proof/inclusion?{query}")


async def test_an_event_beyond_the_end_is_not_found_and_the_problem_names_the_end(shared: Service, head: int) -> None:
    status, problem = await shared.problem(f"/v1/events/{head + 1}")

    assert (status, slug(problem)) == (404, "not-found")
    assert problem["detail"].endswith(f"the log ends at position {head}")


async def test_the_position_of_every_receipt_is_accepted_at_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The window of recent events is not read again: only the log itself knows the position.
    monkeypatch.setattr(live_feed, "GATHER_SECONDS", 60.0)

    async with open_stream(service.client, after=0) as first:
        for _ in range(10):
            (receipt,) = await service.append(cost())
            position = receipt["position"]
            async with open_stream(service.client, last=position):
                pass
            answers = [
                await service.client.get("/v1/events", params={"after": str(position), "until": str(position)}),
                await service.client.get("/v1/spend", params={"min_position": str(position)}),
                await service.client.get(f"/v1/campaigns/{SOMETHING}", params={"as_of": str(position)}),
            ]
            assert [answer.status for answer in answers] == [200, 200, 404]
        assert (await first.take(1))[0]["position"] == 1


async def test_streams_end_when_the_log_is_found_to_be_shorter_and_cannot_resume_beyond_its_end(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.log.notifications.IDLE_SECONDS_MAX", 0.1)
    monkeypatch.setattr("ledger.log.notifications.QUIET_SECONDS_MAX", 0.1)
    await service.append(cost(), cost(), cost())
    async with open_stream(service.client, after=0) as stream:
        assert await stream.positions(3) == [1, 2, 3]

        async with service.database.connection() as connection, connection.transaction():
            await connection.execute("SET LOCAL session_replication_role = replica")
            await connection.execute("DELETE FROM ledger.events WHERE position = 3")
            await connection.execute("UPDATE ledger.log_head SET position = 2")
        async with asyncio.timeout(20):
            assert await stream.event() is None

    status, problem = await service.problem("/v1/events/stream?after=3")
    assert (status, problem["detail"][:29]) == (400, "the log ends at position 2; p")

    async def resumes() -> bool:
        async with service.client.get("/v1/events/stream?after=2") as answer:
            return answer.status == 200

    await eventually(resumes)
