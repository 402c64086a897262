"""append_single, append_batch, append_mixed: durable POSTs against rows written directly."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import aiohttp
from sqlalchemy import URL

from ledger.bench import controls
from ledger.bench.cpu import read_cpu_time
from ledger.bench.environment import Environment
from ledger.bench.errors import PromiseViolationError
from ledger.bench.load_client import LoadResult
from ledger.bench.load_process import Kind, run_load
from ledger.bench.pgbench import INSERT_EVENT, pgbench
from ledger.bench.processes import Child
from ledger.bench.report import Figure, Round, ratio_figure
from ledger.bench.service_metrics import read_metrics

BATCH_EVENTS = 100
SINGLE_CONNECTIONS = 64
BATCH_CONNECTIONS = 8

NOTES = ["no worker runs meanwhile; the log is checked to hold every event, and every response was 201"]
COPY_CONTROL = "asyncpg COPY in transactions of 1,000 rows into a table of the same shape"

Control = Callable[[URL], Awaitable[float]]


class Sending(NamedTuple):
    """What is sent in a round: the kind, the events per request, and the connections."""

    kind: Kind
    events: int
    connections: int


SINGLE = Sending("costs", 1, SINGLE_CONNECTIONS)
BATCH = Sending("costs", BATCH_EVENTS, BATCH_CONNECTIONS)
MIXED = Sending("trace", BATCH_EVENTS, BATCH_CONNECTIONS)


async def append_single(environment: Environment) -> list[Figure]:
    """Measure single events from 64 connections against one-row INSERTs by pgbench."""

    async def control(url: URL) -> float:
        return await pgbench(
            environment.binaries,
            url,
            INSERT_EVENT,
            clients=SINGLE_CONNECTIONS,
            seconds=environment.sizes.seconds,
            folder=environment.folder,
        )

    return [
        await _measure(
            environment,
            "append_single",
            f"single-event POSTs of cost.recorded, {SINGLE_CONNECTIONS} connections",
            f"pgbench -M prepared, {SINGLE_CONNECTIONS} clients: one-row INSERTs into a table of the same shape",
            SINGLE,
            control,
            target=0.75,
            next_target=0.85,
        )
    ]


async def append_batch(environment: Environment) -> list[Figure]:
    """Measure arrays of 100 events from 8 connections against COPY by asyncpg."""
    return [
        await _measure(
            environment,
            "append_batch",
            f"arrays of {BATCH_EVENTS} cost.recorded, {BATCH_CONNECTIONS} connections",
            COPY_CONTROL,
            BATCH,
            _copy_control(environment),
            target=0.3,
            next_target=0.4,
        )
    ]


async def append_mixed(environment: Environment) -> list[Figure]:
    """Measure the trace's mix of jobs and costs against COPY by asyncpg."""
    return [
        await _measure(
            environment,
            "append_mixed",
            f"arrays of {BATCH_EVENTS} in the trace's mix (3 job events, a cost), {BATCH_CONNECTIONS} connections",
            COPY_CONTROL,
            MIXED,
            _copy_control(environment),
            target=0.35,
        )
    ]


def _copy_control(environment: Environment) -> Control:
    async def control(url: URL) -> float:
        async with environment.connection(url) as connection:
            return await controls.copy_events(connection, environment.sizes.copied_events)

    return control


async def _measure(
    environment: Environment,
    name: str,
    work: str,
    control_description: str,
    sending: Sending,
    control: Control,
    *,
    target: float,
    next_target: float | None = None,
) -> Figure:
    rounds: list[Round] = []
    latencies: dict[str, list[float]] = {"latency p50 ms": [], "latency p99 ms": []}
    meter = AppendMeter(environment)
    async with environment.cloned_database(await environment.empty_template()) as url:
        async with environment.connection(url) as connection:
            await controls.create_tables(connection)
        async with environment.api(url) as api:
            await send(environment, api, sending, environment.sizes.warm_up_seconds)
            for number in range(1, environment.sizes.rounds + 1):
                environment.show_step(f"{name}: round {number} of {environment.sizes.rounds}")
                control_rate = await control(url)
                result = await meter.send(url, api, sending)
                rounds.append(Round(result.requests * sending.events / result.seconds, control_rate))
                latencies["latency p50 ms"].append(result.p50_ms)
                latencies["latency p99 ms"].append(result.p99_ms)
    return ratio_figure(
        name,
        work,
        control_description,
        rounds,
        target=target,
        next_target=next_target,
        unit="events/s",
        absolute=latencies,
        microseconds_per_event=meter.microseconds_per_event(),
        notes=[*NOTES, meter.group_size()],
    )


async def send(environment: Environment, api: Child, sending: Sending, seconds: int) -> LoadResult:
    """Send events to the API.

    Args:
        environment: in which to run the load generator.
        api: the process that receives the events.
        sending: what to send.
        seconds: how long to send.

    Returns:
        what was answered.

    Raises:
        MeasurementError: a request failed.
    """
    return await run_load(
        api.url,
        sending.kind,
        seconds=seconds,
        connections=sending.connections,
        events=sending.events,
        folder=environment.folder,
    )


class AppendMeter:
    """Sends rounds of events, checks that the log holds all of them, and adds up the time per process."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._events = 0
        self._groups = 0.0
        self._microseconds: dict[str, float] = {}

    async def send(self, url: URL, api: Child, sending: Sending) -> LoadResult:
        """Send events for one round.

        Args:
            url: of the database.
            api: the process that receives the events.
            sending: what to send.

        Returns:
            what was answered.

        Raises:
            MeasurementError: a request failed.
            PromiseViolationError: the log has fewer new events than were acknowledged.
        """
        environment = self._environment
        cpu_before = read_cpu_time(api.pid, environment.postmaster_pid)
        head_before, groups_before = await environment.head_position(url), await _append_transactions(api.url)
        result = await send(environment, api, sending, environment.sizes.seconds)
        groups, recorded = await _append_transactions(api.url), await environment.head_position(url) - head_before
        sent = result.requests * sending.events
        if recorded < sent:
            raise PromiseViolationError(f"{sent:,} events were acknowledged, the log holds {recorded:,}")
        self._events += recorded
        self._groups += groups.transactions - groups_before.transactions
        self._add(read_cpu_time(api.pid, environment.postmaster_pid).since(cpu_before))
        self._add({"load CPU": result.cpu_seconds * 1e6})
        self._add({"append transaction, elapsed": (groups.seconds - groups_before.seconds) * 1e6})
        self._add({"elapsed": result.seconds * 1e6})
        return result

    def _add(self, microseconds: dict[str, float]) -> None:
        for name, amount in microseconds.items():
            self._microseconds[name] = self._microseconds.get(name, 0.0) + amount

    def microseconds_per_event(self) -> dict[str, float]:
        """Return the average over all rounds, by process or step."""
        return {name: amount / self._events for name, amount in self._microseconds.items()}

    def group_size(self) -> str:
        """Return the average number of events per transaction, as a sentence."""
        return f"{self._events / max(1.0, self._groups):,.0f} events in a transaction on average"


class AppendTransactions(NamedTuple):
    """The append transactions since the start of the API, and the seconds they took in total."""

    transactions: float
    seconds: float


async def _append_transactions(url: str) -> AppendTransactions:
    """Read the count and the duration of append transactions from /metrics."""
    async with aiohttp.ClientSession() as client:
        samples = await read_metrics(client, url)
    return AppendTransactions(samples["ledger_append_seconds_count"], samples["ledger_append_seconds_sum"])
