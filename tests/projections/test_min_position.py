"""The consistency token: an append returns its position, and a read may require that position."""

import asyncio
from decimal import Decimal

import pytest

from ledger.database import Database
from ledger.domain.errors import ProjectionBehind
from projections.positions import wait_for_log, wait_for_read_models
from projections.worker import fold_page
from tests.conftest import Service
from tests.events import campaign, cost
from tests.log.helpers import record


async def test_a_position_that_is_already_reflected_returns_at_once(database: Database) -> None:
    await record(database, cost())
    await fold_page(database)

    await asyncio.wait_for(wait_for_read_models(database, 1), 1)


async def test_a_read_waits_until_its_position_is_reflected(database: Database) -> None:
    await record(database, cost())
    waiting = asyncio.create_task(wait_for_read_models(database, 1))
    done, _ = await asyncio.wait({waiting}, timeout=0.1)

    await fold_page(database)

    assert done == set()
    await asyncio.wait_for(waiting, 5)


async def test_a_position_that_is_not_reached_in_time_raises_and_names_the_position_reached(
    database: Database,
) -> None:
    await record(database, cost(), cost())
    await fold_page(database)

    with pytest.raises(ProjectionBehind, match="position 2, not yet at 3"):
        await wait_for_read_models(database, 3, seconds_max=1)


async def test_the_log_is_waited_for_in_the_same_way(database: Database) -> None:
    await record(database, cost(), cost())
    waiting = asyncio.create_task(wait_for_log(database, 3, seconds_max=5))
    done, _ = await asyncio.wait({waiting}, timeout=0.1)

    await record(database, cost())

    assert done == set()
    await asyncio.wait_for(waiting, 5)
    with pytest.raises(ProjectionBehind, match="the replica's log is at position 3, not yet at 4"):
        await wait_for_log(database, 4, seconds_max=1)


@pytest.mark.parametrize("by_header", [True, False])
async def test_every_read_after_an_append_reflects_it(service: Service, by_header: bool) -> None:
    opened = campaign("100")
    await service.append(opened)
    for number in range(1, 11):
        (receipt,) = await service.append(cost("1", campaign_id=opened["id"]))
        token = str(receipt["position"])
        headers, parameters = ({"Ledger-Min-Position": token}, {}) if by_header else ({}, {"min_position": token})

        async with service.client.get(f"/v1/campaigns/{opened['id']}", headers=headers, params=parameters) as answer:
            row = await answer.json()

        assert (answer.status, Decimal(row["spend"])) == (200, number)
        assert int(answer.headers["Ledger-Position"]) >= receipt["position"]


async def test_a_read_that_times_out_gets_503_with_retry_after(service: Service) -> None:
    async with service.client.get("/v1/campaigns", params={"min_position": "1"}) as answer:
        problem = await answer.json(content_type=None)

    assert (answer.status, problem["type"]) == (503, "/problems/projection-behind")
    assert int(answer.headers["Retry-After"]) >= 1
