"""`Outage`: one line at the begin and one at the end, whatever fails and works in between."""

import asyncio

import asyncpg
import pytest

from ledger.database import outage_reason
from ledger.outage import Outage

pytestmark = pytest.mark.usefixtures("short_quiet")


@pytest.fixture
def short_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.outage.QUIET_SECONDS", 0.02)


async def test_an_outage_is_logged_once_when_it_begins_and_once_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage()

    for _ in range(2):
        for number in range(50):
            # A full disk: some uses fail, others succeed.
            outage.record_failure(f"failure {number}")
            outage.record_success()
        await asyncio.sleep(0.1)

    lines = [record.getMessage() for record in caplog.records]
    assert [line.split(":")[0].split(";")[0] for line in lines] == [
        "the database is unavailable",
        "the database is available again",
    ] * 2
    assert "failure 0" in lines[0]


async def test_an_outage_that_others_log_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage(is_logged=False)

    outage.record_failure("no connection")
    outage.record_success()
    await asyncio.sleep(0.1)

    assert caplog.records == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress"),
            "the connection was lost while it was in use (InternalClientError)",
        ),
        (asyncpg.DiskFullError("no space left\nHINT: add some"), "no space left (DiskFullError)"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_the_reason_of_an_outage_is_one_plain_line(error: Exception, reason: str) -> None:
    assert outage_reason(error) == reason
