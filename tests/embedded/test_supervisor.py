"""The supervisor: what it logs and reports while a server does not start, and how often it tries."""

import asyncio
import logging
from typing import cast

import pytest

from ledger.embedded import EmbeddedError, EmbeddedServer, Supervisor, supervisor
from ledger.outage import Outage


class FakeServer:
    """A server that has ended and starts only at one of the following attempts."""

    pid = 1

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.attempts = 0
        self.runs = False

    def is_running(self) -> bool:
        return self.runs

    def restart(self) -> None:
        self.attempts += 1
        if self.attempts <= self.failures:
            raise EmbeddedError("the disk is gone")
        self.runs = True


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CHECK_SECONDS", "RESTART_SECONDS_MIN", "RESTART_SECONDS_MAX"):
        monkeypatch.setattr(supervisor, name, 0.001)
    monkeypatch.setattr("ledger.outage.QUIET_SECONDS", 0.01)


async def supervised(server: FakeServer) -> tuple[Supervisor, "asyncio.Task[None]"]:
    supervisor = Supervisor(cast("EmbeddedServer", server), Outage())
    return supervisor, asyncio.create_task(supervisor.run())


async def test_a_server_that_does_not_start_is_tried_again_and_logged_in_three_lines(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = FakeServer(failures=5)

    _, task = await supervised(server)
    async with asyncio.timeout(10):
        while "available again" not in caplog.text:
            await asyncio.sleep(0.001)
    task.cancel()

    assert server.attempts == 6
    ended, reason, back = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert ended == "the embedded PostgreSQL (process 1) has ended; it is started again"
    assert reason.endswith("retrying: the disk is gone")
    assert back.startswith("the database is available again")


async def test_a_server_that_stays_down_is_a_problem_that_a_restart_of_the_process_may_mend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = FakeServer(failures=1_000_000)
    supervisor_, task = await supervised(server)
    async with asyncio.timeout(10):
        while server.attempts < 3:
            await asyncio.sleep(0.001)

    soon = supervisor_.problem()
    monkeypatch.setattr(supervisor, "HOPELESS_SECONDS", 0.0)
    later = supervisor_.problem()
    task.cancel()

    assert soon is None
    assert later == "the embedded PostgreSQL has ended and does not start: the disk is gone"
