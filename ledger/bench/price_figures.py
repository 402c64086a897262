"""append_priced: processor time of a cost that the service prices, against one sent with its cost."""

from statistics import median

import aiohttp

from ledger.bench import workload
from ledger.bench.cpu import read_cpu_time
from ledger.bench.environment import Environment
from ledger.bench.errors import MeasurementError, PromiseViolationError
from ledger.bench.load_process import Kind, run_load
from ledger.bench.processes import Child
from ledger.bench.report import Figure, absolute_figure
from ledger.database import Connection

ROUNDS_MIN = 9
"""The difference is small: fewer rounds would show mostly noise."""

EVENTS = 100
CONNECTIONS = 8

OTHER_PRICES = 1_000
"""Prices of other models in the book: about as many as a public price list has."""

PRICED = "SELECT count(*) FROM ledger.cost_events WHERE data ->> 'price' IS NOT NULL"


async def append_priced(environment: Environment) -> list[Figure]:
    """Measure costs with usage alone and costs with usage and cost by turns, as processor time per event."""
    ratios: list[float] = []
    microseconds: dict[Kind, list[float]] = {"usage": [], "usage_and_cost": []}
    rounds = max(ROUNDS_MIN, environment.sizes.rounds)
    async with (
        environment.cloned_database(await environment.empty_template()) as url,
        environment.connection(url) as connection,
        environment.api(url) as api,
    ):
        await _publish(api)
        for kind in microseconds:
            await _measure(environment, connection, api, kind, environment.sizes.warm_up_seconds)
        for number in range(1, rounds + 1):
            environment.show_step(f"append_priced: round {number} of {rounds}")
            for kind, measured in microseconds.items():
                measured.append(await _measure(environment, connection, api, kind, environment.sizes.seconds))
            ratios.append(microseconds["usage"][-1] / microseconds["usage_and_cost"][-1])
    return [
        absolute_figure(
            "append_priced",
            f"processor time of the API and of PostgreSQL for a cost.recorded with usage, divided by that for one with "
            f"usage and a cost; arrays of {EVENTS}, {CONNECTIONS} connections, by turns",
            ratios,
            unit="ratio",
            target=1.1,
            absolute={"priced µs/event": microseconds["usage"], "with cost µs/event": microseconds["usage_and_cost"]},
            notes=[
                f"{OTHER_PRICES + len(workload.MODELS):,} prices in the book; every event without a cost was priced; "
                f"rounds from {min(ratios):.3f} to {max(ratios):.3f}, median {median(ratios):.3f}"
            ],
        )
    ]


async def _publish(api: Child) -> None:
    models = [*workload.MODELS, *(f"other-{number}" for number in range(OTHER_PRICES))]
    body = [workload.price_event(model) for model in models]
    async with aiohttp.ClientSession() as client, client.post(f"{api.url}/v1/events", json=body) as response:
        if response.status != 201:
            raise MeasurementError(f"the prices could not be published: {response.status} {await response.text()}")


async def _measure(environment: Environment, connection: Connection, api: Child, kind: Kind, seconds: int) -> float:
    """Send events of a kind; return the processor time per event, in microseconds."""
    priced_before = await connection.fetchval(PRICED)
    before = read_cpu_time(api.pid, environment.postmaster_pid)
    result = await run_load(
        api.url, kind, seconds=seconds, connections=CONNECTIONS, events=EVENTS, folder=environment.folder
    )
    used = read_cpu_time(api.pid, environment.postmaster_pid).since(before, result.requests * EVENTS)
    priced = await connection.fetchval(PRICED) - priced_before
    expected = result.requests * EVENTS if kind == "usage" else 0
    if priced < expected or (priced and not expected):
        raise PromiseViolationError(f"{expected:,} costs were to be priced, but {priced:,} were")
    return sum(used.values())
