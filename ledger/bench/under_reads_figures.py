"""under_reads: the latency of single appends while other clients read as much as they can."""

from collections import Counter, defaultdict
from statistics import median
from typing import get_args

from sqlalchemy import URL

from ledger.api.spend import SpendKey
from ledger.bench import bounded_data, prepared_data
from ledger.bench.constant_rate import LatencyResult
from ledger.bench.constant_rate_process import run_at_constant_rate
from ledger.bench.environment import Environment
from ledger.bench.errors import MeasurementError, PromiseViolationError
from ledger.bench.processes import Child
from ledger.bench.read_load_process import Reads, competing_reads
from ledger.bench.report import Figure, absolute_figure
from ledger.domain.access import Role

EVENTS_PER_SECOND = 100
RATIO_MAX = 2.0
P99_MS_MAX = 250.0

WAIT_SECONDS_MAX = 5.0
"""How long a read waits for its `min_position`. One that is refused at once comes back as late as one that waited."""


async def under_reads(environment: Environment) -> list[Figure]:
    """Measure single appends at a constant rate, by turns alone and beside each kind of reads."""
    events = environment.sizes.young_log_events
    async with environment.cloned_database(await environment.log_template(events, "trace", folded=True)) as url:
        reads_to_compete_with = await _prepare(environment, url, events)
        append_key = await environment.create_key(url, "appends", Role.AGENT)
        async with environment.api(url, with_keys=True) as api:
            meter = UnderReadsMeter(environment, api, append_key)
            environment.show_step("under_reads: warm-up")
            await meter.measure_appends()
            for number in range(1, environment.sizes.rounds + 1):
                environment.show_step(f"under_reads: round {number} of {environment.sizes.rounds}")
                await meter.measure_round(reads_to_compete_with)
    figures = figures_of(meter.alone, meter.beside)
    figures[0].notes += [f"responses to {name}, by status: {dict(each)}" for name, each in meter.statuses.items()]
    return figures


async def _prepare(environment: Environment, url: URL, events: int) -> list[Reads]:
    """Add an entry with as many adjustments as the log has events; return all kinds of reads.

    The read models stay one event behind the log, since no worker runs: a read that waits for its end waits in vain.
    """
    environment.show_step(f"under_reads: preparing an entry with {events:,} adjustments")
    async with environment.open_database(url) as database:
        entry = await bounded_data.add_entry(database, events)
        await prepared_data.fold_all(database)
        await prepared_data.add_events(database, "costs", 1)
    head = await environment.head_position(url)
    viewer = await environment.create_key(url, "viewer", Role.VIEWER)
    auditor = await environment.create_key(url, "auditor", Role.AUDITOR)
    as_of = f"/v1/budget-entries/{entry}?as_of={head}"
    return [
        Reads("spend by all keys", 40, f"/v1/spend?group_by={','.join(get_args(SpendKey))}", viewer),
        Reads("events as NDJSON", 10, "/v1/events?after=0", auditor, accept="application/x-ndjson"),
        Reads("export", 10, "/v1/log/export", auditor, accept="application/x-ndjson"),
        Reads("as_of of a long entry", 10, as_of, viewer),
        Reads(
            "min_position ahead", 1_500, f"/v1/campaigns?min_position={head}", viewer, retry_seconds=WAIT_SECONDS_MAX
        ),
        Reads("as_of, abandoned", 20, as_of, viewer, is_abandoned=True),
    ]


class UnderReadsMeter:
    """Measures rounds of appends, alone and beside each kind of reads."""

    def __init__(self, environment: Environment, api: Child, append_key: str) -> None:
        """Prepare the measurement.

        Args:
            environment: in which to run the load generators.
            api: the process that receives the requests.
            append_key: the key that appends; reads have other keys.
        """
        self._environment, self._api, self._key = environment, api, append_key
        self.alone: list[LatencyResult] = []
        self.beside: defaultdict[str, list[LatencyResult]] = defaultdict(list)
        self.statuses: defaultdict[str, Counter[int]] = defaultdict(Counter)

    async def measure_appends(self) -> LatencyResult:
        """Append at a constant rate for one round."""
        return await run_at_constant_rate(
            self._api.url,
            "appends",
            seconds=self._environment.sizes.seconds,
            events_per_second=EVENTS_PER_SECOND,
            key=self._key,
            folder=self._environment.folder,
        )

    async def measure_round(self, kinds: list[Reads]) -> None:
        """Measure the appends alone, then beside each kind of reads.

        Raises:
            MeasurementError: a request failed.
            PromiseViolationError: an append was refused beside the reads.
        """
        alone = await self.measure_appends()
        if alone.refused:
            raise MeasurementError(f"{alone.refused:,} appends were refused without any reads: {alone.refusal}")
        self.alone.append(alone)
        for reads in kinds:
            name = f"{reads.connections:,} × {reads.name}"
            async with competing_reads(self._api.url, reads, self._environment.folder) as statuses:
                beside = await self.measure_appends()
            if beside.refused:
                raise PromiseViolationError(
                    f"{beside.refused:,} of {beside.sent:,} appends were refused beside {name}: {beside.refusal}"
                )
            self.beside[name].append(beside)
            self.statuses[name].update(statuses)


def figures_of(alone: list[LatencyResult], beside: dict[str, list[LatencyResult]]) -> list[Figure]:
    """Return the figures of the median and of the 99th percentile, both of the worst kind of reads.

    Args:
        alone: latencies of each round without reads.
        beside: latencies of each round beside each kind of reads, by its name.

    Returns:
        both figures, with the values of each kind.
    """
    ratios = {
        f"{name}, ratio": [each.p50_ms / other.p50_ms for each, other in zip(results, alone, strict=True)]
        for name, results in beside.items()
    }
    tails = {f"{name}, p99 ms": [each.p99_ms for each in results] for name, results in beside.items()}
    work = f"single appends at {EVENTS_PER_SECOND} events/s beside the reads that slow them down most"
    return [
        absolute_figure(
            "under_reads p50",
            f"the median latency of {work}, against the median without reads",
            max(ratios.values(), key=median),
            unit="ratio",
            target=RATIO_MAX,
            absolute={"alone, p50 ms": [each.p50_ms for each in alone], **ratios},
        ),
        absolute_figure(
            "under_reads p99",
            f"the 99th percentile of the latency of {work}",
            max(tails.values(), key=median),
            unit="ms",
            target=P99_MS_MAX,
            absolute={"alone, p99 ms": [each.p99_ms for each in alone], **tails},
        ),
    ]
