"""Job events, and the amounts of cost events, folded into a job's row in memory."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from projections.rows import COUNTER_MAX, add_count
from tests.events import campaign, cost, event, follow, job, reserve
from tests.projections.helpers import NOON, MemoryLog, defaults

AT = datetime(2024, 6, 1, tzinfo=UTC)


def test_a_job_is_queued_with_its_input_as_sent() -> None:
    log, opened = MemoryLog(), campaign(currency="EUR")
    queued = job(opened["id"], agent_type="seo_writer", budget="5", input_data={"b": 1, "a": ["ü", 1.50]})

    log.append(opened, queued)

    assert log.row("agent_jobs", queued) == defaults("agent_jobs") | {
        "id": UUID(queued["id"]),
        "created_at": NOON + timedelta(seconds=1),
        "updated_at": NOON + timedelta(seconds=1),
        "position": 2,
        "agent_type": "seo_writer",
        "status": "pending",
        "currency": "EUR",
        "campaign_id": UUID(opened["id"]),
        "budget": 5,
        "input_data": '{"b":1,"a":["ü",1.5]}',
        "output_data": None,
        "started_at": None,
        "completed_at": None,
        "error_message": None,
        "retry_count": 0,
        "tokens_used": 0,
        "cost": 0,
        "held": 0,
        "actor": "local",
        "agent_name": None,
        "root_job_id": UUID(queued["id"]),
        "labels": "{}",
        "trace_id": None,
        "progress": None,
    }


@pytest.mark.parametrize(("fields", "currency"), [({"currency": "CHF"}, "CHF"), ({}, "USD")])
def test_a_job_without_a_campaign_has_the_currency_it_was_sent_with(fields: dict[str, str], currency: str) -> None:
    log, queued = MemoryLog(), job(**fields)

    log.append(queued)

    assert (log.row("agent_jobs", queued)["currency"], log.row("agent_jobs", queued)["campaign_id"]) == (currency, None)


def test_a_completed_job_has_its_times_progress_and_output() -> None:
    log, queued = MemoryLog(), job()
    log.append(queued)

    log.append(follow(queued, "job.started", occurred_at="2024-06-01T00:00:00Z"))
    running = log.row("agent_jobs", queued)
    log.append(follow(queued, "job.progressed", {"progress": 0.25}), follow(queued, "job.progressed", {"message": "m"}))
    halfway = log.row("agent_jobs", queued)
    log.append(follow(queued, "job.completed", {"output_data": {"a": 1}}, occurred_at="2024-06-01T00:01:00Z"))
    done = log.row("agent_jobs", queued)

    assert (running["status"], running["started_at"], running["completed_at"]) == ("running", AT, None)
    assert (halfway["status"], halfway["progress"]) == ("running", Decimal("0.25"))
    assert (done["status"], done["started_at"], done["completed_at"]) == ("completed", AT, AT + timedelta(minutes=1))
    assert (done["output_data"], done["progress"], done["position"]) == ('{"a":1}', Decimal("0.25"), 5)


def test_a_job_may_complete_without_output() -> None:
    log, queued = MemoryLog(), job()

    log.append(queued, follow(queued, "job.started"), follow(queued, "job.completed"))

    assert (log.row("agent_jobs", queued)["status"], log.row("agent_jobs", queued)["output_data"]) == (
        "completed",
        None,
    )


def test_a_failed_job_has_its_error_message_and_a_retry_clears_it() -> None:
    log, queued = MemoryLog(), job()
    log.append(queued, follow(queued, "job.started"))

    log.append(follow(queued, "job.failed", {"error_message": "It broke"}))
    failed = log.row("agent_jobs", queued)
    log.append(follow(queued, "job.retried"))
    retried = log.row("agent_jobs", queued)

    assert (failed["status"], failed["error_message"], failed["retry_count"]) == ("failed", "It broke", 0)
    assert (failed["started_at"], failed["completed_at"]) == (NOON + timedelta(seconds=1), NOON + timedelta(seconds=2))
    assert (retried["status"], retried["error_message"], retried["retry_count"]) == ("pending", None, 1)
    assert (retried["started_at"], retried["completed_at"]) == (None, None)


def test_a_cancelled_job_is_completed_and_its_holds_are_released() -> None:
    log, queued = MemoryLog(), job()
    log.append(queued, reserve("5", agent_job_id=queued["id"]), reserve("6", agent_job_id=queued["id"]))
    held = log.row("agent_jobs", queued)["held"]

    log.append(follow(queued, "job.cancelled", {"reason": "Not needed"}))

    row = log.row("agent_jobs", queued)
    assert (held, row["held"], row["status"], row["completed_at"]) == (11, 0, "cancelled", NOON + timedelta(seconds=3))
    assert row["position"] == 6
    assert [entry["status"] for entry in log.rows("budget_entries")] == ["released", "released"]


def test_a_deleted_job_has_no_row() -> None:
    log, queued = MemoryLog(), job()

    log.append(queued, follow(queued, "job.cancelled"), follow(queued, "job.deleted"))

    assert log.rows("agent_jobs") == []


def test_costs_change_cost_held_and_tokens() -> None:
    log, queued = MemoryLog(), job()
    held = reserve("20", agent_job_id=queued["id"])
    recorded = cost("5.25", agent_job_id=queued["id"], tokens_used=100)
    balances = []

    for step in (
        queued,
        recorded,
        held,
        follow(held, "cost.settled", {"cost": "19", "tokens_used": 11}),
        follow(recorded, "cost.adjusted", {"amount": "1", "tokens_used": -100, "reason": "Counted twice"}),
    ):
        log.append(step)
        row = log.row("agent_jobs", queued)
        balances.append((row["cost"], row["held"], row["tokens_used"]))

    assert balances == [
        (0, 0, 0),
        (Decimal("5.25"), 0, 100),
        (Decimal("5.25"), 20, 100),
        (Decimal("24.25"), 0, 111),
        (Decimal("25.25"), 0, 11),
    ]


@pytest.mark.parametrize(
    ("count", "increment", "expected"),
    [
        (1, None, 1),
        (COUNTER_MAX - 1, 1, COUNTER_MAX),
        (COUNTER_MAX - 1, 2, COUNTER_MAX),
        (COUNTER_MAX, 10**12, COUNTER_MAX),
        (5, -7, 0),
    ],
)
def test_counters_stop_at_the_range_of_a_bigint(count: int, increment: int | None, expected: int) -> None:
    assert add_count(count, increment) == expected


def test_a_recorded_job_has_its_status_times_texts_and_place_in_the_tree() -> None:
    log, owner = MemoryLog(), campaign(currency="EUR", labels={"team": "core"})
    parent = job(owner["id"])
    data = {"agent_type": "coder", "input_data": {"a": 1}, "status": "failed", "error_message": "it broke"}
    times = {"started_at": "2024-06-01T00:00:00Z", "completed_at": "2024-06-01T00:01:00Z"}
    log.append(owner, parent)

    recorded = event("job.recorded", {**data, **times, "output_data": {}, "parent_job_id": parent["id"]})
    log.append(recorded)

    row = log.row("agent_jobs", recorded)
    assert {name: row[name] for name in ("status", "started_at", "completed_at", "error_message")} == {
        **{"status": "failed", "started_at": AT, "completed_at": AT + timedelta(minutes=1)},
        "error_message": "it broke",
    }
    assert (row["output_data"], row["currency"], row["campaign_id"]) == ("{}", "EUR", UUID(owner["id"]))
    assert (row["parent_job_id"], row["root_job_id"]) == (UUID(parent["id"]), UUID(parent["id"]))
    assert row["labels"] == '{"team":"core"}'


def test_a_recorded_job_ended_when_the_event_happened_if_nothing_else_is_said() -> None:
    log, data = MemoryLog(), {"agent_type": "coder", "input_data": {}, "status": "cancelled"}
    recorded = event("job.recorded", data, occurred_at="2024-06-01T00:00:00Z")

    log.append(recorded)

    row = log.row("agent_jobs", recorded)
    assert (row["started_at"], row["completed_at"]) == (None, AT)


def test_a_job_can_be_completed_before_it_is_reported_as_started() -> None:
    log, queued, silent = MemoryLog(), job(), job()
    log.append(queued, silent)

    log.append(follow(queued, "job.completed", {"started_at": "2024-06-01T00:00:00Z"}), follow(silent, "job.completed"))

    assert [log.row("agent_jobs", each)["started_at"] for each in (queued, silent)] == [AT, None]
    assert log.row("agent_jobs", queued)["status"] == "completed"


def test_a_changed_budget_of_a_job_is_shown_and_null_removes_it() -> None:
    log, queued = MemoryLog(), job(budget="5")
    log.append(queued)
    shown = []

    for data in ({"budget": "7.5"}, {"reason": "unchanged"}, {"budget": None}):
        log.append(follow(queued, "job.budget_changed", data))
        shown.append(log.row("agent_jobs", queued)["budget"])

    assert shown == [Decimal("7.5"), Decimal("7.5"), None]


def test_a_cost_changes_the_tree_cost_of_every_job_above_and_nothing_else_of_them() -> None:
    log, root = MemoryLog(), job()
    child = job(parent_job_id=root["id"])
    leaf = job(parent_job_id=child["id"])
    held = reserve("5", agent_job_id=leaf["id"])
    log.append(root, child, leaf)
    before = {each["id"]: log.row("agent_jobs", each) for each in (root, child)}

    log.append(held)
    after_the_hold = {each["id"]: log.row("agent_jobs", each) for each in (root, child)}
    log.append(follow(held, "cost.settled", {"cost": "2", "tokens_used": 7}))

    assert after_the_hold == before
    changed = {"tree_cost": 2, "position": 5, "updated_at": NOON + timedelta(seconds=4)}
    assert [log.row("agent_jobs", each) for each in (root, child)] == [row | changed for row in before.values()]
    row = log.row("agent_jobs", leaf)
    assert (row["cost"], row["tree_cost"], row["tokens_used"], row["root_job_id"]) == (2, 2, 7, UUID(root["id"]))
