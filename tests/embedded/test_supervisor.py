"""The supervisor: what it logs while a server does not start, how often it tries, when it gives up."""

import asyncio
import logging
from collections.abc import Sequence
from typing import cast

import pytest

from ledger.embedded import EmbeddedError, EmbeddedServer, Supervisor, supervisor
from ledger.outage import Outage


class FakeServer:
    """A server that has ended, and starts again after some failures; then it may run for a number of checks only."""

    pid = 1

    def __init__(self, failures: int = 0, checks: int | None = None, faults: Sequence[Exception] = ()) -> None:
        self.failures = failures
        self.checks = checks
        self.faults = list(faults)
        self.attempts = 0
        self.runs = False
        self.checked = 0

    def is_running(self) -> bool:
        if self.faults:
            raise self.faults.pop()
        self.checked += 1
        return self.runs and (self.checks is None or self.checked <= self.checks)

    def restart(self) -> None:
        self.attempts += 1
        if self.attempts <= self.failures:
            raise EmbeddedError("the disk is gone")
        self.runs = True
        self.checked = 0


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CHECK_SECONDS", "RESTART_SECONDS_MIN", "RESTART_SECONDS_MAX"):
        monkeypatch.setattr(supervisor, name, 0.001)
    monkeypatch.setattr("ledger.outage.QUIET_SECONDS", 0.01)


def supervised(server: FakeServer, *, is_logged: bool = False) -> "asyncio.Task[None]":
    """Supervise a server in the background; a test with a logged outage waits until its end is logged."""
    return asyncio.create_task(Supervisor(cast("EmbeddedServer", server), Outage(is_logged=is_logged)).run())


async def ended(server: FakeServer) -> None:
    """Run a supervisor until it gives up."""
    async with asyncio.timeout(10):
        await Supervisor(cast("EmbeddedServer", server), Outage(is_logged=False)).run()


async def test_a_server_that_does_not_start_is_tried_again_and_logged_in_three_lines(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = FakeServer(failures=5)

    task = supervised(server, is_logged=True)
    async with asyncio.timeout(10):
        while "available again" not in caplog.text:
            await asyncio.sleep(0.001)
    task.cancel()

    assert server.attempts == 6
    ended, reason, back = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert ended == "the embedded PostgreSQL (process 1) has ended; restarting it"
    assert reason.endswith("retrying: the disk is gone")
    assert back.startswith("the database is available again")


async def test_a_server_that_does_not_start_is_given_up_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "GIVE_UP_SECONDS", 0.05)
    server = FakeServer(failures=1_000_000)

    with pytest.raises(EmbeddedError, match=r"did not restart within 0 s: the disk is gone$"):
        await ended(server)

    assert server.attempts > 1


async def test_a_server_that_ends_soon_after_each_start_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "GIVE_UP_SECONDS", 0.05)
    server = FakeServer(checks=2)

    with pytest.raises(EmbeddedError, match="it ends soon after each start"):
        await ended(server)

    assert server.attempts > 1


async def test_a_server_that_ends_at_times_but_is_up_in_between_is_not_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "GIVE_UP_SECONDS", 0.0)
    monkeypatch.setattr(supervisor, "STABLE_SECONDS", 0.0)
    server = FakeServer(checks=2)

    task = supervised(server)
    async with asyncio.timeout(10):
        while server.attempts < 20 and not task.done():
            await asyncio.sleep(0.001)

    assert not task.done()
    task.cancel()


async def test_a_check_that_fails_for_a_time_does_not_end_the_supervision() -> None:
    server = FakeServer(faults=[OSError("too many open files"), ValueError("no pid")])

    task = supervised(server)
    async with asyncio.timeout(10):
        while server.attempts < 1 and not task.done():
            await asyncio.sleep(0.001)

    assert server.runs
    task.cancel()
