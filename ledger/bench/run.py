"""A whole run: which figures there are, in which order, and the report of them."""

import asyncio
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ledger.bench import append, folding, growing, holds, memory, reading, sealing
from ledger.bench.machine import describe
from ledger.bench.plan import GROWN_EVENTS, QUICK, WHOLE
from ledger.bench.processes import MeasurementError
from ledger.bench.report import Figure, Report
from ledger.bench.stage import Stage
from ledger.config import parse_url
from ledger.embedded import EmbeddedServer

FIGURES: dict[str, Callable[[Stage], Awaitable[list[Figure]]]] = {
    "append_single": append.append_single,
    "append_batch": append.append_batch,
    "append_mixed": append.append_mixed,
    "holds": holds.holds,
    "catch_up": folding.catch_up,
    "rebuild": folding.rebuild,
    "visible": reading.visible,
    "read": reading.read,
    "growth": growing.growth,
    "seal": sealing.seal,
    "memory": memory.memory,
}
"""By name, in the order in which they are measured."""


def bench(
    run: Callable[..., Report],
    only: Sequence[str] = (),
    *,
    quick: bool,
    say: Callable[[str], None],
    rounds: int | None = None,
    measured: Callable[[Figure], None] = lambda figure: None,
) -> Report:
    """Measure on a throw-away server of its own, which is gone on return.

    Args:
        run: what runs a coroutine to its end.
        only: names of figures; all when empty.
        quick: smaller and shorter, to see that everything can be measured.
        say: told what is being done.
        rounds: instead of as many as `quick` chooses.
        measured: called with each figure once it is there.

    Raises:
        EmbeddedError: the server cannot be started.
    """
    plan = QUICK if quick else WHOLE
    if rounds is not None:
        plan = msgspec.structs.replace(plan, rounds=rounds)
    if list(only) == ["growth"] and not quick:
        plan = msgspec.structs.replace(plan, log_events=GROWN_EVENTS)
    with tempfile.TemporaryDirectory(prefix="ledger-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        # Where PostgreSQL runs as a user of its own, it must pass through.
        folder.chmod(0o711)
        say("starting PostgreSQL")
        with EmbeddedServer.acquire(folder / "server") as server:
            stage = Stage(parse_url("DATABASE_URL", server.url), server.pid, folder, plan, say)
            on_sigterm = signal.getsignal(signal.SIGTERM)
            try:
                return run(_measure(stage, only or list(FIGURES), quick, measured))
            finally:
                # The loop has taken it: told to end from now on, stop the server first.
                signal.signal(signal.SIGTERM, on_sigterm)


async def _measure(stage: Stage, names: Sequence[str], quick: bool, measured: Callable[[Figure], None]) -> Report:
    """Measure one after the other. Told to end, it ends the processes that it started first."""
    ours = asyncio.current_task()
    assert ours is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ours.cancel)
    began = time.monotonic()
    figures: list[Figure] = []
    seconds_of: dict[str, float] = {}
    not_measured: dict[str, str] = {}
    for name in FIGURES:
        if name not in names:
            continue
        begun = time.monotonic()
        try:
            for figure in await FIGURES[name](stage):
                figures.append(figure)
                measured(figure)
        except MeasurementError as error:
            not_measured[name] = str(error)
        seconds_of[name] = round(time.monotonic() - begun, 1)
    return Report(
        quick=quick,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - began, 1),
        seconds_of=seconds_of,
        plan=msgspec.structs.asdict(stage.plan),
        machine=await describe(stage),
        figures=figures,
        not_measured=not_measured,
    )
