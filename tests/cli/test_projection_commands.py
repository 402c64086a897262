"""`ledger projections retry` and `skip`, and how `status` and `doctor` report paused read models."""

import asyncio
import getpass
import json
from typing import Any

import pytest
from sqlalchemy import URL

from ledger.database import Database
from projections import worker as worker_module
from tests.cli.helpers import ledger
from tests.conftest import Service
from tests.events import cost
from tests.log.helpers import query, record
from tests.projections.helpers import folded_up_to, position
from tests.projections.poison import paused, poison, runs_again, state


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between retries of an event."""
    monkeypatch.setattr(worker_module, "RETRY_SECONDS_MIN", 0.0005)


@pytest.fixture
async def stopped(service: Service) -> dict[str, Any]:
    """A service whose read models are paused at position 2 of 3; the error recorded."""
    await service.append(cost())
    await poison(service.database, "cost.recorded", 1, '{"resource_type":"other"}')
    await service.append(cost("3"))
    return await paused(service.database)


async def test_status_and_doctor_name_the_event_and_the_next_step(stopped: dict[str, Any], database_url: URL) -> None:
    status, status_json, doctor, doctor_json = await asyncio.gather(
        *(
            ledger(*arguments, database=database_url)
            for arguments in (["status"], ["status", "--json"], ["doctor"], ["doctor", "--json"])
        )
    )

    what = f"cost.recorded at position 2{{}} {stopped['error']}"
    assert (status.code, status_json.code, doctor.code, doctor_json.code) == (0, 0, 1, 1)
    assert "Read models: paused, at position 1, 2 events behind." in status.out
    assert f"Last error: {what.format(':')}" in status.out
    assert "`ledger projections retry|skip`" in status.out
    assert json.loads(status_json.out)["projections"] == "paused"
    assert json.loads(status_json.out)["last_error"] == stopped
    assert what.format(" fails with") in doctor.out
    (check,) = (check for check in json.loads(doctor_json.out) if check["name"] == "worker")
    assert (check["verdict"], what.format(" fails with") in check["says"]) == ("problem", True)


async def test_a_skip_is_recorded_with_user_and_reason_and_the_worker_continues_at_once(
    stopped: dict[str, Any], service: Service, database_url: URL
) -> None:
    result = await ledger("projections", "skip", "campaigns", "--reason", "Written by hand", database=database_url)
    await folded_up_to(service.database, 4)

    assert result.code == 0
    assert "cost.recorded at position 2" in result.out
    assert await state(service.database) == ("running", None)
    (recorded,) = (await service.get("/v1/events", category="ledger"))["events"]
    assert (recorded["type"], recorded["position"]) == ("ledger.projection_skipped", 4)
    assert recorded["data"] == {
        "projection": "read_models",
        "position": 2,
        "event_type": "cost.recorded",
        "by": getpass.getuser(),
        "error": stopped["error"],
        "reason": "Written by hand",
    }
    assert await query(service.database, "SELECT cost FROM budget_entries ORDER BY position") == [(1,), (3,)]


async def test_the_worker_retries_after_the_cause_is_fixed(service: Service, database_url: URL) -> None:
    await query(service.database, "ALTER TABLE budget_entries ADD CONSTRAINT by_hand CHECK (cost < 100)")
    await service.append(cost("100"))
    await paused(service.database)
    await query(service.database, "ALTER TABLE budget_entries DROP CONSTRAINT by_hand")

    result = await ledger("projections", "retry", "read_models", "--json", database=database_url)
    await folded_up_to(service.database, 1)

    assert (result.code, json.loads(result.out)) == (0, {"name": "read_models", "status": "running"})
    await runs_again(service.database)


async def test_a_retry_that_fails_pauses_the_read_models_again(
    stopped: dict[str, Any], service: Service, database_url: URL
) -> None:
    result = await ledger("projections", "retry", "agent_jobs", database=database_url)

    again = await paused(service.database)
    assert result.code == 0
    assert (again["position"], again["type"], await position(service.database)) == (2, "cost.recorded", 1)


async def test_a_skip_without_a_paused_event_is_an_error_and_a_wrong_name_is_wrong_usage(
    database: Database, database_url: URL
) -> None:
    await record(database, cost())
    nothing, unknown, unknown_retry, no_reason, empty_reason = await asyncio.gather(
        *(
            ledger("projections", *arguments, database=database_url)
            for arguments in (
                ["skip", "campaigns", "--reason", "Why"],
                ["skip", "everything", "--reason", "Why"],
                ["retry", "everything"],
                ["skip", "campaigns"],
                ["skip", "campaigns", "--reason", ""],
            )
        )
    )

    assert nothing.code == 1
    assert nothing.err == "Error: no event stops the read models: they are running at position 0\n"
    assert [result.code for result in (unknown, unknown_retry, no_reason, empty_reason)] == [2] * 4
    assert "'everything' is not one of" in unknown.err
    assert "campaigns" in unknown.err
    assert "--reason" in no_reason.err
    assert "1 to 500 characters" in empty_reason.err
    assert await query(database, "SELECT count(*) FROM ledger.events") == [(1,)]


async def test_a_worker_in_another_process_folds_at_once_what_the_command_line_appends(
    service: Service, database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "IDLE_SECONDS_MIN", 600)
    await service.append(cost())
    await folded_up_to(service.database, 1)
    # The worker polls once more, finds nothing, and would poll again in ten minutes.
    await asyncio.sleep(0.2)

    result = await ledger("events", "append", database=database_url, stdin=json.dumps(cost()).encode())
    await folded_up_to(service.database, 2)

    assert result.code == 0
