"""A benchmark run: the list of figures, the order in which they are measured, and the report."""

import asyncio
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ledger.bench import (
    append_figures,
    bounded_figures,
    fairness_figures,
    fold_figures,
    hold_figures,
    long_log_figures,
    memory_figures,
    price_figures,
    read_figures,
    seal_figures,
    under_reads_figures,
)
from ledger.bench.environment import Environment
from ledger.bench.errors import MeasurementError, PromiseViolationError
from ledger.bench.host import describe
from ledger.bench.report import BenchReport, Figure
from ledger.bench.sizes import FULL, GROWTH_ONLY_LOG_EVENTS, QUICK, Sizes
from ledger.config import parse_url
from ledger.embedded import EmbeddedServer

FIGURES: dict[str, Callable[[Environment], Awaitable[list[Figure]]]] = {
    "append_single": append_figures.append_single,
    "append_batch": append_figures.append_batch,
    "append_mixed": append_figures.append_mixed,
    "append_priced": price_figures.append_priced,
    "holds": hold_figures.holds,
    "fair": fairness_figures.fair,
    "catch_up": fold_figures.catch_up,
    "rebuild": fold_figures.rebuild,
    "visible": read_figures.visible,
    "read": read_figures.read,
    "under_reads": under_reads_figures.under_reads,
    "growth": long_log_figures.growth,
    "seal": seal_figures.seal,
    "memory": memory_figures.memory,
    "bounded": bounded_figures.bounded,
}
"""By name, in the order in which they are measured."""


def bench(
    run: Callable[..., BenchReport],
    only: Sequence[str] = (),
    *,
    quick: bool,
    on_step: Callable[[str], None],
    rounds: int | None = None,
    on_figure: Callable[[Figure], None] = lambda figure: None,
) -> BenchReport:
    """Measure on a temporary server, which is removed afterwards.

    Args:
        run: runs a coroutine to its end in an event loop, and returns its result.
        only: names of figures; all if empty.
        quick: use small sizes, to show that everything can be measured.
        on_step: called with one line about each step before it begins.
        rounds: replaces the number of rounds that `quick` implies.
        on_figure: called with each figure once it is measured.

    Returns:
        the report.

    Raises:
        EmbeddedError: the server cannot be started.
    """
    with tempfile.TemporaryDirectory(prefix="ledger-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        # PostgreSQL may run as another user, which must be able to traverse the folder.
        folder.chmod(0o711)
        on_step("starting PostgreSQL")
        with EmbeddedServer.acquire(folder / "server") as server:
            sizes = _sizes(only, quick, rounds)
            environment = Environment(parse_url("DATABASE_URL", server.url), server.pid, folder, sizes, on_step)
            sigterm_handler = signal.getsignal(signal.SIGTERM)
            try:
                return run(_measure(environment, only or list(FIGURES), quick, on_figure))
            finally:
                # The event loop replaced the handler; from here on SIGTERM must stop the server before the process.
                signal.signal(signal.SIGTERM, sigterm_handler)


def _sizes(only: Sequence[str], quick: bool, rounds: int | None) -> Sizes:
    sizes = QUICK if quick else FULL
    if rounds is not None:
        sizes = msgspec.structs.replace(sizes, rounds=rounds)
    if list(only) == ["growth"] and not quick:
        sizes = msgspec.structs.replace(sizes, log_events=GROWTH_ONLY_LOG_EVENTS)
    return sizes


async def _measure(
    environment: Environment, names: Sequence[str], quick: bool, on_figure: Callable[[Figure], None]
) -> BenchReport:
    """Measure one figure after the other. SIGTERM cancels this task, which ends its child processes first."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    began = time.monotonic()
    figures: list[Figure] = []
    seconds_of: dict[str, float] = {}
    not_measured: dict[str, str] = {}
    violated: dict[str, str] = {}
    for name in (each for each in FIGURES if each in names):
        figure_began = time.monotonic()
        try:
            for figure in await FIGURES[name](environment):
                figures.append(figure)
                on_figure(figure)
        except MeasurementError as error:
            not_measured[name] = str(error)
        except PromiseViolationError as error:
            violated[name] = str(error)
        seconds_of[name] = round(time.monotonic() - figure_began, 1)
    return BenchReport(
        quick=quick,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - began, 1),
        seconds_of=seconds_of,
        plan=msgspec.structs.asdict(environment.sizes),
        machine=await describe(environment),
        figures=figures,
        not_measured=not_measured,
        violated=violated,
    )
