"""append_single, append_batch, append_mixed: durable POSTs against rows that PostgreSQL is given directly."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import URL

from ledger.bench import controls, cpu
from ledger.bench.load import Kind, Loaded, put_load
from ledger.bench.pgbench import INSERT_EVENT, pgbench
from ledger.bench.processes import Child, MeasurementError
from ledger.bench.report import Figure, Pair, ratio
from ledger.bench.stage import Stage

BATCH_EVENTS = 100
SINGLE_CONNECTIONS = 64
BATCH_CONNECTIONS = 8

NOTES = ["the worker does not run meanwhile; every event is counted in the log, and all answers were 201"]


class Sending(NamedTuple):
    """What is sent in a round."""

    kind: Kind
    events: int
    connections: int


SINGLE = Sending("costs", 1, SINGLE_CONNECTIONS)
BATCH = Sending("costs", BATCH_EVENTS, BATCH_CONNECTIONS)
MIXED = Sending("trace", BATCH_EVENTS, BATCH_CONNECTIONS)


async def append_single(stage: Stage) -> list[Figure]:
    """Single events from 64 connections against pgbench's one-row INSERTs."""

    async def control(url: URL) -> float:
        return await pgbench(
            stage.binaries,
            url,
            INSERT_EVENT,
            clients=SINGLE_CONNECTIONS,
            seconds=stage.plan.seconds,
            folder=stage.folder,
        )

    return [
        await _measure(
            stage,
            "append_single",
            f"single-event POSTs of cost.recorded, {SINGLE_CONNECTIONS} connections",
            f"pgbench -M prepared, {SINGLE_CONNECTIONS} clients: one-row INSERTs into a table of the same shape",
            SINGLE,
            control,
            target=0.6,
            next_target=0.75,
        )
    ]


async def append_batch(stage: Stage) -> list[Figure]:
    """Arrays of 100 from 8 connections against asyncpg's COPY."""
    return [
        await _measure(
            stage,
            "append_batch",
            f"arrays of {BATCH_EVENTS} cost.recorded, {BATCH_CONNECTIONS} connections",
            "asyncpg COPY in transactions of 1,000 rows into a table of the same shape",
            BATCH,
            _copying(stage),
            target=0.4,
            next_target=0.5,
        )
    ]


async def append_mixed(stage: Stage) -> list[Figure]:
    """The trace's mix of jobs and costs against the same COPY."""
    return [
        await _measure(
            stage,
            "append_mixed",
            f"arrays of {BATCH_EVENTS} in the trace's mix (3 job events, a cost), {BATCH_CONNECTIONS} connections",
            "asyncpg COPY in transactions of 1,000 rows into a table of the same shape",
            MIXED,
            _copying(stage),
            target=0.25,
        )
    ]


def _copying(stage: Stage) -> Callable[[URL], Awaitable[float]]:
    async def control(url: URL) -> float:
        async with stage.connection(url) as connection:
            return await controls.copy_events(connection, stage.plan.copied_events)

    return control


async def _measure(
    stage: Stage,
    name: str,
    work: str,
    control_is: str,
    sending: Sending,
    control: Callable[[URL], Awaitable[float]],
    *,
    target: float,
    next_target: float | None = None,
) -> Figure:
    pairs: list[Pair] = []
    latencies: dict[str, list[float]] = {"latency p50 ms": [], "latency p99 ms": []}
    meter = Meter(stage)
    async with stage.database(await stage.empty()) as url:
        async with stage.connection(url) as connection:
            await controls.make_tables(connection)
        async with stage.api(url) as api:
            await put_load(
                api.url,
                sending.kind,
                seconds=stage.plan.warm_up_seconds,
                connections=sending.connections,
                events=sending.events,
                folder=stage.folder,
            )
            for number in range(1, stage.plan.rounds + 1):
                stage.say(f"{name}: round {number} of {stage.plan.rounds}")
                beside = await control(url)
                loaded = await meter.sent(url, api, sending)
                pairs.append(Pair(loaded.requests * sending.events / loaded.seconds, beside))
                latencies["latency p50 ms"].append(loaded.p50_ms)
                latencies["latency p99 ms"].append(loaded.p99_ms)
    return ratio(
        name,
        work,
        control_is,
        pairs,
        target=target,
        next_target=next_target,
        unit="events/s",
        absolute=latencies,
        microseconds_per_event=meter.microseconds_per_event(),
        notes=[*NOTES, meter.group_size()],
    )


class Meter:
    """Sends, counts what has come into the log, and adds up where the time went."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._events = 0
        self._groups = 0.0
        self._sums: dict[str, float] = {}

    async def sent(self, url: URL, api: Child, sending: Sending) -> Loaded:
        """A round of load.

        Raises:
            MeasurementError: the log has fewer events than were acknowledged.
        """
        stage = self._stage
        before, position = cpu.spent(api.pid, stage.postmaster_pid), await stage.position(url)
        groups_before = await _append_transactions(api.url)
        loaded = await put_load(
            api.url,
            sending.kind,
            seconds=stage.plan.seconds,
            connections=sending.connections,
            events=sending.events,
            folder=stage.folder,
        )
        groups = await _append_transactions(api.url)
        recorded = await stage.position(url) - position
        if recorded < loaded.requests * sending.events:
            raise MeasurementError(f"{loaded.requests * sending.events:,} events acknowledged, {recorded:,} in the log")
        self._events += recorded
        spent = cpu.spent(api.pid, stage.postmaster_pid).since(before, 1)
        self._add(spent)
        self._add({"append transaction, elapsed": (groups["seconds"] - groups_before["seconds"]) * 1e6})
        self._add({"elapsed": loaded.seconds * 1e6})
        self._groups += groups["groups"] - groups_before["groups"]
        return loaded

    def _add(self, sums: dict[str, float]) -> None:
        for name, amount in sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + amount

    def microseconds_per_event(self) -> dict[str, float]:
        """Over all rounds."""
        return {name: amount / self._events for name, amount in self._sums.items()}

    def group_size(self) -> str:
        """How many events came into one transaction, in words."""
        return f"{self._events / max(1.0, self._groups):,.0f} events in a transaction on average"


async def _append_transactions(url: str) -> dict[str, float]:
    """How many append transactions there were so far, and the seconds that they took, as /metrics says."""
    async with aiohttp.ClientSession() as client, client.get(f"{url}/metrics") as answer:
        text = await answer.text()
    samples = {
        sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples
    }
    return {"groups": samples["ledger_append_seconds_count"], "seconds": samples["ledger_append_seconds_sum"]}
