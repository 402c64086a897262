"""Runs the fault-injection suite: fault after fault from a seed, each followed by recovery and checks."""

import asyncio
import random
import secrets
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from pathlib import Path

import aiohttp
import msgspec

from ledger.bench.faults import fast_path_check, full_check
from ledger.bench.faults.agents import Agents
from ledger.bench.faults.checker import Checker
from ledger.bench.faults.checkpoint_checker import CheckpointChecker
from ledger.bench.faults.entry_points import signing_files
from ledger.bench.faults.fault_types import DISK_FAULTS, Fault, FaultContext, schedule
from ledger.bench.faults.history import AcknowledgedEvent, History
from ledger.bench.faults.retrying_client import RetryingClient, client_session
from ledger.bench.faults.system_under_test import SystemUnderTest, running_system
from ledger.bench.service_metrics import read_metrics

FAULTS_BETWEEN_FULL_CHECKS = 40
CALM_SECONDS_MAX = 0.2
RECOVER_SECONDS_MAX = 60.0
VIOLATIONS_SHOWN_MAX = 10
API_COUNT = 2
"""API processes, unless another number is requested."""


class FaultReport(msgspec.Struct):
    """The result of a run. The same `seed` injects the same faults in the same order, but not at the same moments."""

    seed: int
    api_count: int = API_COUNT
    seconds: float = 0.0
    faults: dict[str, int] = {}
    left_out: dict[str, str] = {}
    events: int = 0
    events_acknowledged: int = 0
    answers: dict[int, int] = {}
    sent_again: int = 0
    recover_seconds_max: float = 0.0
    checkpoints: int = 0
    verified: int = 0
    violations: list[str] = []

    @property
    def fault_count(self) -> int:
        """The number of faults injected."""
        return sum(self.faults.values())


async def run(
    seed: int | None = None,
    *,
    seconds: float | None = None,
    faults: int | None = None,
    api_count: int = API_COUNT,
    on_step: Callable[[str], None] = lambda line: None,
    logs: Path | None = None,
) -> FaultReport:
    """Inject faults into a whole service under load, until a limit is reached or a promise is violated.

    PostgreSQL and all processes are started in a temporary folder and end with the run.

    Args:
        seed: of a run to repeat; random if None.
        seconds: limit on the duration.
        faults: limit on the number of faults; at least one of the two limits is required.
        api_count: API processes that append at the same time.
        on_step: called with a line of text about each step; the first contains the seed.
        logs: an existing folder in which the log files of the processes are kept.

    Returns:
        what was injected and which promises were violated, if any.
    """
    assert seconds is not None or faults is not None
    seed = secrets.randbits(32) if seed is None else seed
    on_step(f"seed {seed}")
    async with running_system(api_count, logs) as system, client_session(system.key) as session:
        return await _Run(system, session, FaultReport(seed, api_count), on_step).run(seconds, faults)


class _Run:
    def __init__(
        self,
        system: SystemUnderTest,
        session: aiohttp.ClientSession,
        report: FaultReport,
        on_step: Callable[[str], None],
    ) -> None:
        self._system = system
        self._session = session
        self._report = report
        self._on_step = on_step
        self._rng = random.Random(report.seed)  # noqa: S311
        self._history = History()
        self._agents = Agents(session, lambda: system.urls, self._history, self._rng)
        self._probers = [
            RetryingClient(
                session,
                partial(self._url_of, index),
                self._history,
                random.Random(self._rng.getrandbits(64)),  # noqa: S311
            )
            for index in range(report.api_count)
        ]
        self._checker = Checker(self._history)
        self._last_full_check = 0
        files = signing_files(system.home)
        local = files.read()
        assert local is not None
        self._checkpoint_checker = CheckpointChecker(files, local.verifier)

    async def run(self, seconds: float | None, faults: int | None) -> FaultReport:
        began = time.monotonic()
        self._leave_out_disk_faults()
        await self._agents.create_campaigns()
        clients = [asyncio.create_task(self._agents.run_client(client)) for client in self._agents.clients]
        try:
            await self._inject_faults(clients, began, seconds, faults)
            self._agents.stopping = True
            if not self._report.violations:
                await asyncio.gather(*clients)
        finally:
            for client in clients:
                client.cancel()
        if not self._report.violations:
            self._record_violations("at the end", await full_check.wait_until_caught_up(self._system))
            self._record_violations("at the end", await self._check_everything())
        if not self._report.violations:
            self._record_violations("at the end", await self._check_fast_path())
        self._complete_report(began)
        return self._report

    def _leave_out_disk_faults(self) -> None:
        if self._system.disk_unavailable is not None:
            for fault in DISK_FAULTS:
                self._report.left_out[fault.__name__] = self._system.disk_unavailable
                self._on_step(f"LEFT OUT: {fault.__name__}: {self._system.disk_unavailable}")

    async def _inject_faults(
        self, clients: list[asyncio.Task[None]], began: float, seconds: float | None, faults: int | None
    ) -> None:
        upcoming: list[Fault] = []
        while self._report.fault_count != faults and (seconds is None or time.monotonic() - began < seconds):
            upcoming = upcoming or schedule(self._rng, with_disk=self._system.disk is not None)
            await self._inject(upcoming.pop())
            for client in clients:
                if client.done():
                    # Clients end only when `stopping` is set, or with an error, which this raises.
                    client.result()
            if self._report.violations:
                break

    def _complete_report(self, began: float) -> None:
        report, history = self._report, self._history
        report.seconds = time.monotonic() - began
        report.events, report.events_acknowledged = self._checker.position, len(history.acknowledged)
        report.answers, report.sent_again = dict(sorted(history.statuses.items())), history.retries
        report.checkpoints = self._checkpoint_checker.count

    async def _inject(self, fault: Fault) -> None:
        # A separate generator: how many numbers a fault draws depends on timing, and must not affect later faults.
        rng = random.Random(self._rng.getrandbits(64))  # noqa: S311
        name, number = fault.__name__, self._report.fault_count + 1
        label = f"fault {number}, {name}"
        await asyncio.sleep(rng.uniform(0, CALM_SECONDS_MAX))
        began = time.monotonic()
        await fault(FaultContext(self._system, self._agents, rng))
        self._report.faults[name] = self._report.faults.get(name, 0) + 1
        try:
            async with asyncio.timeout(RECOVER_SECONDS_MAX):
                await self._system.recover()
                await asyncio.gather(*map(self._probe, range(self._report.api_count)))
        except TimeoutError:
            self._record_violations(label, [f"the service did not recover within {RECOVER_SECONDS_MAX:.0f} s"])
            return
        recovered = time.monotonic() - began
        self._report.recover_seconds_max = max(self._report.recover_seconds_max, recovered)
        self._record_violations(label, await self._check_after(number))
        checked = time.monotonic() - began - recovered
        self._on_step(
            f"{label}: recovered in {recovered:.2f} s, checked in {checked:.2f} s, {self._checker.position} events"
        )

    async def _check_after(self, number: int) -> list[str]:
        """Run the incremental check, and the full one at intervals that grow with the log, as its duration does."""
        if number - self._last_full_check < max(FAULTS_BETWEEN_FULL_CHECKS, self._checker.position // 1_000):
            return await self._check_new_events()
        self._last_full_check = number
        return await self._check_everything()

    def _url_of(self, index: int) -> list[str]:
        return [self._system.urls[index]]

    async def _probe(self, index: int) -> None:
        """Wait until an API process records a new event and returns its row."""
        url, receipt = self._system.urls[index], await self._append_probe(index)
        if receipt is None:
            # Refused, which the history has recorded as a violation.
            return
        parameters = {"min_position": str(receipt.position)}
        while True:
            try:
                async with self._session.get(f"{url}/v1/budget-entries/{receipt.id}", params=parameters) as response:
                    if response.status == HTTPStatus.OK:
                        return
            except aiohttp.ClientError:
                # The fault cut the connection.
                await asyncio.sleep(0.05)

    async def _append_probe(self, index: int) -> AcknowledgedEvent | None:
        prober = self._probers[index]
        receipts = await prober.append(prober.event("cost.recorded", {"resource_type": "other", "cost": "0.01"}))
        return receipts[0] if receipts else None

    async def _check_new_events(self) -> list[str]:
        acknowledged = self._history.take_unchecked()
        async with self._system.connection() as connection:
            violations = await self._checker.violations(connection, acknowledged)
        url = self._system.urls[self._report.fault_count % self._report.api_count]
        return violations + await self._checkpoint_checker.violations(self._session, url)

    async def _check_everything(self) -> list[str]:
        self._report.verified += 1
        violations = await self._check_new_events()
        local = signing_files(self._system.home).read()
        async with self._system.open_database() as database:
            return violations + await full_check.violations(database, local, self._history)

    async def _check_fast_path(self) -> list[str]:
        """Check each API process alone: without the workers, whose sweeper appends the expiry of holds."""
        for worker in self._system.workers:
            await worker.kill()
        violations = []
        for index, url in enumerate(self._system.urls):

            async def append(index: int = index) -> int:
                receipt = await self._append_probe(index)
                return receipt.position if receipt else 0

            async def optimistic_groups(url: str = url) -> float:
                return (await read_metrics(self._session, url))[fast_path_check.OPTIMISTIC_GROUPS]

            found = await fast_path_check.violations(append, optimistic_groups)
            violations += [f"API process {index}: {each}" for each in found]
        return violations

    def _record_violations(self, label: str, found: list[str]) -> None:
        from_clients, self._history.violations = self._history.violations, []
        violations = [f"{label}: {each}" for each in [*found, *from_clients][:VIOLATIONS_SHOWN_MAX]]
        self._report.violations += violations
        for violation in violations:
            self._on_step(f"VIOLATION after {violation}")
