"""Reads that wait for a position: `min_position` and `Ledger-Min-Position`."""

import asyncio
import time
from typing import Any

import pytest

from tests.api.helpers import worker_stopped
from tests.conftest import Service
from tests.events import campaign, cost

READ_MODELS = [
    "campaigns",
    "campaigns/{}",
    "campaigns/{}/budget",
    "content-assets",
    "agent-jobs",
    "budget-entries",
    "spend",
]


@pytest.mark.parametrize("path", READ_MODELS)
@pytest.mark.parametrize("by", ["parameter", "header"])
async def test_a_read_waits_for_the_minimum_position_and_returns_the_position_it_reflects(
    shared: Service, path: str, by: str
) -> None:
    created = campaign()
    (receipt,) = await shared.append(created)
    position = str(receipt["position"])
    parameters = {"min_position": position} if by == "parameter" else {}
    headers = {"Ledger-Min-Position": position} if by == "header" else {}

    address = f"/v1/{path.format(created['id'])}"
    async with shared.client.get(address, params=parameters, headers=headers) as answer:
        assert answer.status == 200
        assert int(answer.headers["Ledger-Position"]) >= receipt["position"]


async def test_a_position_that_is_not_reached_within_five_seconds_is_503(shared: Service) -> None:
    created = campaign()
    await shared.append(created)
    await shared.get("/v1/campaigns", limit=1)
    started = time.monotonic()

    async def read(path: str, **headers: str) -> tuple[int, str | None, dict[str, Any]]:
        async with shared.client.get(path, headers=headers) as answer:
            return answer.status, answer.headers.get("Retry-After"), await answer.json(content_type=None)

    async with worker_stopped(shared):
        (receipt,) = await shared.append(cost())
        position = str(receipt["position"])
        # More reads than the pool has connections: other requests must not wait for one.
        reads = [read(f"/v1/{path.format(created['id'])}?min_position={position}") for path in READ_MODELS * 3]
        reads.append(read("/v1/spend", **{"Ledger-Min-Position": position}))
        waiting = asyncio.gather(*reads)
        async with asyncio.timeout(2):
            await shared.append(cost())
            assert (await shared.client.get("/v1/spend")).status == 200
        answers = await waiting

    assert 4.5 < time.monotonic() - started < 7
    assert {status for status, _, _ in answers} == {503}
    assert {problem["type"] for _, _, problem in answers} == {"/problems/projection-behind"}
    assert all(int(retry or 0) >= 1 for _, retry, _ in answers)
