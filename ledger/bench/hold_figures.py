"""holds: reserve and settle on one campaign from many connections, checked for overspending."""

from decimal import Decimal
from uuid import UUID

import aiohttp
from sqlalchemy import URL

from ledger.bench import controls, workload
from ledger.bench.cpu import read_cpu_time
from ledger.bench.environment import Environment
from ledger.bench.errors import MeasurementError, PromiseViolationError
from ledger.bench.load_client import LoadResult
from ledger.bench.load_process import run_load
from ledger.bench.pgbench import HOLD_AND_SETTLE, pgbench
from ledger.bench.processes import Child
from ledger.bench.report import Figure, Round, ratio_figure
from ledger.database import Connection

CONNECTIONS = 64
CONTROL_CLIENTS = (8, 64)

AVAILABLE_AT_END = Decimal(10)
"""What is left of the budget for the last check: twenty holds fit, and 64 connections compete for them."""

# The amount spent and held after each event, computed from the log alone; and the balance that the service keeps.
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


async def holds(environment: Environment) -> list[Figure]:
    """Measure pairs of reserve and settle on one campaign against plain SQL in pgbench."""
    async with environment.cloned_database(await environment.empty_template()) as url:
        async with environment.connection(url) as connection:
            await controls.create_tables(connection)
        async with environment.api(url) as api:
            await _send(environment, api, environment.sizes.warm_up_seconds)
            meter = HoldMeter(environment, url, api)
            for number in range(1, environment.sizes.rounds + 1):
                environment.show_step(f"holds: round {number} of {environment.sizes.rounds}")
                await meter.measure_round(number)
            refused = await _require_no_overspending(environment, url, api)
    return [
        ratio_figure(
            "holds",
            f"reserve and settle on one campaign, {CONNECTIONS} connections",
            f"pgbench -M prepared, plain SQL, two commits per pair; the better of {CONTROL_CLIENTS} clients per round",
            meter.rounds,
            target=4.5,
            unit="pairs/s",
            absolute=meter.control_rates,
            microseconds_per_event=meter.microseconds_per_event(),
            notes=[
                f"no overspending: with {AVAILABLE_AT_END} left, {refused:,} holds were refused "
                "and the budget was never exceeded"
            ],
        )
    ]


class HoldMeter:
    """Measures rounds of pairs of reserve and settle, each beside the control."""

    def __init__(self, environment: Environment, url: URL, api: Child) -> None:
        """Prepare the measurement.

        Args:
            environment: in which to run the load generators.
            url: of the database.
            api: the process that receives the holds.
        """
        self.rounds: list[Round] = []
        self.control_rates: dict[str, list[float]] = {_control_name(clients): [] for clients in CONTROL_CLIENTS}
        self._environment, self._url, self._api = environment, url, api
        self._settled = 0
        self._microseconds: dict[str, float] = {}

    async def measure_round(self, number: int) -> None:
        """Measure the control with each number of clients, then the API."""
        environment, api = self._environment, self._api
        rates = {clients: await self._control(clients, number) for clients in CONTROL_CLIENTS}
        for clients, rate in rates.items():
            self.control_rates[_control_name(clients)].append(rate)
        cpu_before = read_cpu_time(api.pid, environment.postmaster_pid)
        result = await _send(environment, api, environment.sizes.seconds)
        microseconds = read_cpu_time(api.pid, environment.postmaster_pid).since(cpu_before)
        microseconds |= {"load CPU": result.cpu_seconds * 1e6, "elapsed": result.seconds * 1e6}
        self._microseconds = {name: self._microseconds.get(name, 0.0) + amount for name, amount in microseconds.items()}
        self._settled += result.settled
        self.rounds.append(Round(result.settled / result.seconds, max(rates.values())))

    async def _control(self, clients: int, number: int) -> float:
        return await pgbench(
            self._environment.binaries,
            self._url,
            HOLD_AND_SETTLE,
            clients=clients,
            seconds=max(1, self._environment.sizes.seconds // 2),
            folder=self._environment.folder,
            variables={"made": (number * 100 + clients) * 1_000_000},
        )

    def microseconds_per_event(self) -> dict[str, float]:
        """Return the average over all rounds, by process; a pair has two events."""
        return {name: amount / self._settled / 2 for name, amount in self._microseconds.items()}


def _control_name(clients: int) -> str:
    return f"pgbench of {clients} clients, pairs/s"


async def _send(environment: Environment, api: Child, seconds: int, cost: str = "0.25") -> LoadResult:
    return await run_load(
        api.url, "holds", seconds=seconds, connections=CONNECTIONS, cost=cost, amount="0.5", folder=environment.folder
    )


async def _require_no_overspending(environment: Environment, url: URL, api: Child) -> int:
    """Leave little of the budget, request far more than fits, and check the log; return the number of refused holds."""
    campaign = workload.as_uuid(workload.campaign_id(0))
    async with environment.connection(url) as connection:
        budget = await connection.fetchval(BALANCE, campaign) + AVAILABLE_AT_END
        position = await _change_budget(api, campaign, budget)
        result = await _send(environment, api, environment.sizes.seconds, cost="0.0001")
        await _check_log(connection, campaign, position, budget)
    if not result.refused:
        raise MeasurementError(f"no hold was refused, although only {AVAILABLE_AT_END} of the budget was left")
    return result.refused


async def _change_budget(api: Child, campaign: UUID, budget: Decimal) -> int:
    """Change the budget; return the position of the event."""
    event = {"type": "campaign.budget_changed", "stream_id": str(campaign), "data": {"budget": f"{budget:f}"}}
    async with aiohttp.ClientSession() as client, client.post(f"{api.url}/v1/events", json=event) as response:
        if response.status != 201:
            raise MeasurementError(f"the budget could not be changed: {response.status} {await response.text()}")
        return int((await response.json())["position"])


async def _check_log(connection: Connection, campaign: UUID, position: int, budget: Decimal) -> None:
    row = await connection.fetchrow(HIGHEST, campaign, position)
    assert row is not None
    if row["highest"] > budget:
        raise PromiseViolationError(f"overspent: {row['highest']} was spent and held of a budget of {budget}")
    if row["last"] != row["balance"]:
        raise PromiseViolationError(f"the log gives {row['last']} spent and held, but the balance is {row['balance']}")
