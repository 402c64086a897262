"""bounded: work that must not grow with history: a long entry, the end of jobs with many holds."""

import asyncio
import time
from statistics import median
from uuid import uuid4

import aiohttp
from sqlalchemy import URL

from ledger.bench import bounded_data
from ledger.bench.environment import Environment
from ledger.bench.errors import PromiseViolationError
from ledger.bench.prepared_data import Event, wait_until_folded
from ledger.bench.processes import Child
from ledger.bench.report import Figure, absolute_figure
from ledger.bench.service_metrics import read_metrics
from ledger.database import Connection

RATIO_MAX = 1.5
PAUSE_MS_MAX = 50.0
PEAK_MB_MAX = 250.0

HOLDS_PER_ENDED_JOB = 10

APPENDS_PER_ROUND = 50
"""Appends to each entry in a round, in turns."""

RESPONSE_SECONDS_MAX = 60.0
RELEASE_SECONDS_MAX = 300.0

PAUSE_METRIC = "ledger_event_loop_longest_pause_seconds"

OPEN_HOLDS = "SELECT count(*) FROM ledger.holds WHERE agent_job_id = ANY ($1)"

HELD = """
SELECT (SELECT coalesce(sum(amount), 0) FROM ledger.holds) AS by_holds,
    (SELECT coalesce(sum(held), 0) FROM ledger.accounts WHERE scope = 'campaign') AS by_accounts
"""


async def bounded(environment: Environment) -> list[Figure]:
    """Measure appends to a long entry against appends to a new one, and the end of jobs with many holds."""
    sizes = environment.sizes
    async with environment.cloned_database(await environment.empty_template()) as url:
        environment.show_step(f"bounded: preparing an entry with {sizes.long_entry_adjustments:,} adjustments")
        async with environment.open_database(url) as database:
            entries = [
                await bounded_data.add_entry(database, adjustments) for adjustments in (sizes.long_entry_adjustments, 0)
            ]
            environment.show_step("bounded: preparing jobs with open holds")
            jobs = await bounded_data.add_jobs(database, sizes.ended_jobs, holds_per_job=HOLDS_PER_ENDED_JOB)
            (large_job,) = await bounded_data.add_jobs(database, 1, holds_per_job=sizes.holds_of_one_job)
        async with environment.api(url) as api, BoundedMeter(environment, url, api) as meter:
            for number in range(1, sizes.rounds + 1):
                environment.show_step(f"bounded: round {number} of {sizes.rounds}")
                await meter.append_in_turns(*entries)
            # The worker releases the holds that one transaction may not.
            async with environment.worker(url), environment.connection(url) as connection:
                environment.show_step("bounded: waiting for the read models")
                await wait_until_folded(connection)
                await meter.end_jobs(f"{len(jobs):,} jobs with {HOLDS_PER_ENDED_JOB} holds each", jobs)
                await meter.end_jobs(f"one job with {sizes.holds_of_one_job:,} holds", [large_job])
            return meter.figures(api.peak_mb())


class BoundedMeter:
    """Sends the appends one after the other, and reads the longest pause of the event loop after each kind."""

    def __init__(self, environment: Environment, url: URL, api: Child) -> None:
        """Prepare the measurement.

        Args:
            environment: with the database.
            url: of the database.
            api: the process that receives the requests.
        """
        self._environment, self._url, self._api = environment, url, api
        self._ratios: list[float] = []
        self._latencies: dict[str, list[float]] = {"long entry ms": [], "new entry ms": []}
        self._seconds: dict[str, list[float]] = {}
        self._pauses_ms: dict[str, list[float]] = {}

    async def __aenter__(self) -> "BoundedMeter":
        timeout = aiohttp.ClientTimeout(RESPONSE_SECONDS_MAX)
        self._client = aiohttp.ClientSession(self._api.url, timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def append_in_turns(self, long_entry: str, new_entry: str) -> None:
        """Append adjustments to both entries in turns.

        Raises:
            PromiseViolationError: an adjustment was refused.
        """
        seconds: dict[str, list[float]] = {long_entry: [], new_entry: []}
        for _ in range(APPENDS_PER_ROUND):
            for entry, measured in seconds.items():
                began = time.perf_counter()
                await self._post("an adjustment", [bounded_data.adjustment(str(uuid4()), entry)])
                measured.append(time.perf_counter() - began)
        long, new = median(seconds[long_entry]), median(seconds[new_entry])
        self._ratios.append(long / new)
        self._latencies["long entry ms"].append(long * 1e3)
        self._latencies["new entry ms"].append(new * 1e3)
        await self._read_pause("adjustments")

    async def end_jobs(self, name: str, jobs: list[str]) -> None:
        """End jobs in one request, and wait until all their holds are released.

        Args:
            name: of the jobs, for the report.
            jobs: their ids.

        Raises:
            PromiseViolationError: the request was refused, or holds are still open long after it.
        """
        self._environment.show_step(f"bounded: ending {name}")
        began = time.perf_counter()
        await self._post(f"the end of {name}", bounded_data.failures(jobs))
        answered = time.perf_counter() - began
        async with self._environment.connection(self._url) as connection:
            await _wait_until_released(connection, name, jobs)
        self._seconds[f"{name}: answered after s"] = [answered]
        self._seconds[f"{name}: released after s"] = [time.perf_counter() - began]
        await self._read_pause(f"end of {name}")

    async def _post(self, what: str, events: list[Event]) -> None:
        async with self._client.post("/v1/events", json=events) as response:
            if response.status != 201:
                raise PromiseViolationError(f"{what} was answered {response.status}: {(await response.text())[:1000]}")

    async def _read_pause(self, name: str) -> None:
        pause_ms = (await read_metrics(self._client, self._api.url))[PAUSE_METRIC] * 1e3
        self._pauses_ms.setdefault(f"{name}, ms", []).append(pause_ms)

    def figures(self, peak_mb: float) -> list[Figure]:
        """Return the figures of latency, pauses and memory; `peak_mb` is the peak memory of the API process."""
        sizes = self._environment.sizes
        work = f"appends to an entry with {sizes.long_entry_adjustments:,} adjustments, and the end of jobs with holds"
        return [
            absolute_figure(
                "bounded latency",
                f"an adjustment of an entry with {sizes.long_entry_adjustments:,} adjustments, against a new entry",
                self._ratios,
                unit="ratio",
                target=RATIO_MAX,
                absolute=self._latencies | self._seconds,
            ),
            absolute_figure(
                "bounded pause",
                f"the longest pause of the API's event loop during {work}",
                [max(pause for pauses in self._pauses_ms.values() for pause in pauses)],
                unit="ms",
                target=PAUSE_MS_MAX,
                absolute=self._pauses_ms,
                notes=[
                    "measured in the API process every 20 ms: a pause may have been 20 ms longer; each value is the "
                    "longest of the last one to two minutes"
                ],
            ),
            absolute_figure(
                "bounded memory",
                f"peak resident memory of the API process during {work}",
                [peak_mb],
                unit="MB",
                target=PEAK_MB_MAX,
            ),
        ]


async def _wait_until_released(connection: Connection, name: str, jobs: list[str]) -> None:
    """Wait until no hold of these jobs is open; what is held then must be what the open holds add up to."""
    deadline = time.perf_counter() + RELEASE_SECONDS_MAX
    while open_holds := await connection.fetchval(OPEN_HOLDS, jobs):
        if time.perf_counter() > deadline:
            raise PromiseViolationError(
                f"{RELEASE_SECONDS_MAX:.0f} s after the end of {name}, {open_holds:,} holds are still open"
            )
        await asyncio.sleep(0.05)
    held = await connection.fetchrow(HELD)
    assert held is not None
    if held["by_holds"] != held["by_accounts"]:
        raise PromiseViolationError(
            f"after the end of {name}, the open holds add up to {held['by_holds']}, "
            f"but {held['by_accounts']} is held of the budgets"
        )
