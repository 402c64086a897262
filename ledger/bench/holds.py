"""holds: reserve and settle on one campaign from many connections, and not one overspend."""

from decimal import Decimal
from typing import TYPE_CHECKING

import aiohttp
from sqlalchemy import URL

from ledger.bench import controls, cpu, traffic
from ledger.bench.load import Loaded, put_load
from ledger.bench.pgbench import HOLD_AND_SETTLE, pgbench
from ledger.bench.processes import Child, MeasurementError
from ledger.bench.report import Figure, Pair, ratio
from ledger.bench.stage import Stage
from ledger.database import Connection

if TYPE_CHECKING:
    pass

CONNECTIONS = 64
CONTROL_CLIENTS = (8, 64)

TIGHT = Decimal(10)
"""What is left of the budget in the end, when twenty holds fit and 64 connections want one."""

# What was spent and held together after each event, told from the log alone; and what the balances say in the end.
HIGHEST = """
WITH moves AS (
    SELECT event.position, sum(CASE event.type
        WHEN 'cost.reserved' THEN (event.data ->> 'amount')::numeric
        ELSE (event.data ->> 'cost')::numeric - (reserve.data ->> 'amount')::numeric
    END) OVER (ORDER BY event.position) AS taken
    FROM ledger.cost_events AS event
    LEFT JOIN ledger.cost_events AS reserve ON reserve.stream_id = event.stream_id AND reserve.version = 1
    WHERE event.campaign_id = $1 AND event.type IN ('cost.reserved', 'cost.settled')
)
SELECT max(taken) FILTER (WHERE position > $2) AS highest, (array_agg(taken ORDER BY position DESC))[1] AS last,
    (SELECT spent + held FROM ledger.accounts WHERE account_id = $1 AND scope = 'campaign') AS balance
FROM moves
"""
BALANCE = "SELECT spent + held FROM ledger.accounts WHERE account_id = $1 AND scope = 'campaign'"


async def holds(stage: Stage) -> list[Figure]:
    """Pairs of reserve and settle on one campaign against the same by hand in pgbench."""
    pairs: list[Pair] = []
    by_clients: dict[str, list[float]] = {f"pgbench of {clients} clients, pairs/s": [] for clients in CONTROL_CLIENTS}
    totals: dict[str, float] = {}
    settled = 0
    async with stage.database(await stage.empty()) as url:
        async with stage.connection(url) as connection:
            await controls.make_tables(connection)
        async with stage.api(url) as api:
            await _load(stage, api, stage.plan.warm_up_seconds)
            for number in range(1, stage.plan.rounds + 1):
                stage.say(f"holds: round {number} of {stage.plan.rounds}")
                rates = {clients: await _control(stage, url, clients, number) for clients in CONTROL_CLIENTS}
                for clients, rate in rates.items():
                    by_clients[f"pgbench of {clients} clients, pairs/s"].append(rate)
                before = cpu.spent(api.pid, stage.postmaster_pid)
                loaded = await _load(stage, api, stage.plan.seconds)
                spent = cpu.spent(api.pid, stage.postmaster_pid).since(before, 1) | {"elapsed": loaded.seconds * 1e6}
                totals = {name: totals.get(name, 0.0) + amount for name, amount in spent.items()}
                settled += loaded.settled
                pairs.append(Pair(loaded.settled / loaded.seconds, max(rates.values())))
            refused = await _require_no_overspend(stage, url, api)
    return [
        ratio(
            "holds",
            f"reserve and settle on one campaign, {CONNECTIONS} connections",
            f"pgbench -M prepared by hand, two commits a pair; each round the better of {CONTROL_CLIENTS} clients",
            pairs,
            target=2.0,
            unit="pairs/s",
            absolute=by_clients,
            microseconds_per_event={name: amount / settled / 2 for name, amount in totals.items()},
            notes=[f"no overspend: with {TIGHT} left, {refused:,} holds were refused and the limit was never passed"],
        )
    ]


async def _load(stage: Stage, api: Child, seconds: int, cost: str = "0.25") -> Loaded:
    return await put_load(
        api.url, "holds", seconds=seconds, connections=CONNECTIONS, cost=cost, amount="0.5", folder=stage.folder
    )


async def _control(stage: Stage, url: URL, clients: int, number: int) -> float:
    return await pgbench(
        stage.binaries,
        url,
        HOLD_AND_SETTLE,
        clients=clients,
        seconds=max(1, stage.plan.seconds // 2),
        folder=stage.folder,
        variables={"made": (number * 100 + clients) * 1_000_000},
    )


async def _require_no_overspend(stage: Stage, url: URL, api: Child) -> int:
    """Leave little of the budget, ask for far more than fits, and look at the log; how many holds were refused."""
    campaign = traffic.as_uuid(traffic.campaign_id(0))
    async with stage.connection(url) as connection:
        budget = await connection.fetchval(BALANCE, campaign) + TIGHT
        event = {"type": "campaign.budget_changed", "stream_id": str(campaign), "data": {"budget": f"{budget:f}"}}
        async with aiohttp.ClientSession() as client, client.post(f"{api.url}/v1/events", json=event) as answer:
            if answer.status != 201:
                raise MeasurementError(f"the budget could not be changed: {await answer.text()}")
            position = (await answer.json())["position"]
        loaded = await _load(stage, api, stage.plan.seconds, cost="0.0001")
        await _check_log(connection, campaign, position, budget)
    if not loaded.refused:
        raise MeasurementError("with a tight budget, no hold was refused")
    return loaded.refused


async def _check_log(connection: Connection, campaign: object, position: int, budget: Decimal) -> None:
    row = await connection.fetchrow(HIGHEST, campaign, position)
    assert row is not None
    if row["highest"] > budget:
        raise MeasurementError(f"OVERSPENT: {row['highest']} was spent and held of a budget of {budget}")
    if row["last"] != row["balance"]:
        raise MeasurementError(f"the log gives {row['last']} spent and held, the balance says {row['balance']}")
