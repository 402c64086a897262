"""Holds that the service ends: released at the end of their job, or expired."""

import json

import pytest

from ledger.domain.errors import IllegalTransition
from ledger.domain.event import Receipt
from tests.domain.helpers import NOW, MemoryLedger, later, stream_in, stream_of, unknown
from tests.events import campaign, job, reserve

ENDS = ["completed", "failed", "cancelled"]


@pytest.mark.parametrize("end", ENDS)
def test_the_end_of_a_job_releases_all_of_its_open_holds(end: str) -> None:
    ledger = MemoryLedger()
    owner = stream_in(ledger, "campaign", "active")
    working = stream_in(ledger, "job", "running", campaign_id=owner["id"])
    holds = [reserve(amount, agent_job_id=working["id"]) for amount in ("1", "2", "4")]
    ledger.accept(*holds, later(holds[0], "settled", cost="0.5"))

    receipt = ledger.accept({**later(working, end), "correlation_id": unknown()})

    ended, *released = ledger.working_state.events[receipt.position - 1 :]
    assert [(event.type, event.stream_id) for event in released] == [
        ("cost.released", stream_of(hold)) for hold in holds[1:]
    ]
    for event in released:
        assert (event.actor, event.causation_id, event.correlation_id) == ("ledger", ended.id, ended.correlation_id)
        assert (event.campaign_id, event.agent_job_id) == (stream_of(owner), stream_of(working))
        assert (event.version, json.loads(event.data), event.text) == (2, {}, None)
    assert not ledger.working_state.holds
    assert (
        ledger.balances(working)
        == ledger.balances(owner)
        == (ledger.working_state.entries[stream_of(holds[0])].cost, 0)
    )


def test_releases_are_not_in_the_receipts_and_keep_positions_without_gaps() -> None:
    ledger = MemoryLedger()
    working = stream_in(ledger, "job", "running")
    ledger.accept(reserve(agent_job_id=working["id"]), reserve(agent_job_id=working["id"]))

    receipts = ledger.batch(later(working, "completed"), campaign())

    assert [receipt.position for receipt in receipts if isinstance(receipt, Receipt)] == [5, 8]
    assert [event.position for event in ledger.working_state.events] == list(range(1, 9))


@pytest.mark.parametrize("end", ENDS)
def test_the_end_of_a_job_does_not_release_other_holds(end: str) -> None:
    ledger = MemoryLedger()
    owner = stream_in(ledger, "campaign", "active")
    working, other = (stream_in(ledger, "job", "running", campaign_id=owner["id"]) for _ in range(2))
    others = [reserve("2", agent_job_id=other["id"]), reserve("3", campaign_id=owner["id"]), reserve("4")]
    ledger.accept(*others, reserve("8", agent_job_id=working["id"]))

    ledger.accept(later(working, end))

    assert list(ledger.working_state.holds) == [stream_of(hold) for hold in others]
    assert ledger.balances(owner) == (0, 5)
    assert ledger.balances(other) == (0, 2)


def test_an_overdue_hold_counts_until_it_expires_and_is_released_with_its_job() -> None:
    ledger = MemoryLedger()
    working = stream_in(ledger, "job", "running")
    held = reserve("3", expires_in=1, agent_job_id=working["id"])
    ledger.accept(held)
    ledger.pass_seconds(10)
    held_when_overdue = ledger.account(working).held

    ledger.accept(later(working, "completed"))

    assert held_when_overdue == 3
    assert ledger.status(held) == "released"


def test_a_job_that_ends_again_after_a_retry_releases_only_open_holds() -> None:
    ledger = MemoryLedger()
    working = stream_in(ledger, "job", "running")
    ledger.accept(reserve("1", agent_job_id=working["id"]), later(working, "failed"), later(working, "retried"))
    second = reserve("2", agent_job_id=working["id"])
    ledger.accept(second)

    ledger.accept(later(working, "cancelled"))

    released = [event.stream_id for event in ledger.working_state.events if event.type == "cost.released"]
    assert released[1:] == [stream_of(second)]


def test_a_refused_end_releases_nothing() -> None:
    ledger = MemoryLedger()
    working = stream_in(ledger, "job", "pending")
    ledger.accept(reserve("1", agent_job_id=working["id"]))

    ledger.refuse({**later(working, "completed"), "expected_version": 2})
    ledger.batch(later(working, "completed"), later(working, "started"))

    assert ledger.status(working) == "pending"
    assert ledger.balances(working) == (0, 1)
    assert len(ledger.working_state.holds) == 1


def test_a_duplicate_of_the_end_releases_nothing() -> None:
    ledger = MemoryLedger()
    working = stream_in(ledger, "job", "running")
    end = later(working, "completed")
    ledger.accept(reserve(agent_job_id=working["id"]), end)
    before = ledger.snapshot()

    receipt = ledger.accept(end)

    assert receipt.duplicate
    assert ledger.snapshot() == before


def test_the_id_of_a_release_cannot_be_predicted_by_the_client() -> None:
    rehearsal, ledger = MemoryLedger(), MemoryLedger()
    working = job()
    held, end = {**reserve(agent_job_id=working["id"]), "stream_id": unknown()}, later(working, "cancelled")
    rehearsal.accept(working, held, end)
    foreseen = str(rehearsal.last.id)
    ledger.accept(working, {**held, "id": foreseen})
    ledger.pass_seconds(0.000001)

    ledger.accept(end)

    identities = [(event.category, event.stream_id, event.id) for event in ledger.working_state.events]
    assert len(set(identities)) == len(identities), "the unique index would refuse the whole group of requests"


@pytest.mark.parametrize(("seconds", "due"), [(0, False), (59.999999, False), (60, True), (3600, True)])
def test_a_hold_expires_only_when_it_is_due(seconds: float, due: bool) -> None:
    ledger = MemoryLedger()
    owner = stream_in(ledger, "campaign", "active")
    held = reserve("5", expires_in=60, campaign_id=owner["id"])
    ledger.accept(held)
    ledger.pass_seconds(seconds)

    verdict = ledger.expire(held)

    assert isinstance(verdict, Receipt if due else IllegalTransition)
    assert ledger.status(held) == ("expired" if due else "held")
    assert ledger.balances(owner) == (0, 0 if due else 5)
    assert (ledger.last.actor == "ledger") == due


def test_a_hold_without_expires_in_lasts_nine_hundred_seconds() -> None:
    ledger = MemoryLedger()
    held = reserve()
    ledger.accept(held)

    expires_at = ledger.working_state.entries[stream_of(held)].expires_at

    assert expires_at is not None
    assert (expires_at - NOW).total_seconds() == 900


@pytest.mark.parametrize("status", ["settled", "released", "expired", None])
def test_only_a_held_entry_can_expire(status: str | None) -> None:
    ledger = MemoryLedger()
    entry = stream_in(ledger, "cost", status)
    ledger.pass_seconds(1000)
    before = ledger.snapshot()

    verdict = ledger.expire(entry)

    assert ledger.snapshot() == before
    assert isinstance(verdict, IllegalTransition)
    assert (verdict.status, verdict.allowed_from) == (status, ["held"])
