"""Holds that end by events of the service: released with their job, or expired when they are due."""

import json

import pytest

from ledger.domain.errors import IllegalTransition
from ledger.domain.event import Receipt
from tests.domain.helpers import NOW, Desk, later, stream_in, stream_of, unknown
from tests.events import campaign, job, reserve

ENDS = ["completed", "failed", "cancelled"]


@pytest.mark.parametrize("end", ENDS)
def test_the_end_of_a_job_releases_each_of_its_open_holds(end: str) -> None:
    desk = Desk()
    owner = stream_in(desk, "campaign", "active")
    working = stream_in(desk, "job", "running", campaign_id=owner["id"])
    holds = [reserve(amount, agent_job_id=working["id"]) for amount in ("1", "2", "4")]
    desk.accept(*holds, later(holds[0], "settled", cost="0.5"))

    receipt = desk.accept({**later(working, end), "correlation_id": unknown()})

    ended, *released = desk.working_state.events[receipt.position - 1 :]
    assert [(event.type, event.stream_id) for event in released] == [
        ("cost.released", stream_of(hold)) for hold in holds[1:]
    ]
    for event in released:
        assert (event.actor, event.causation_id, event.correlation_id) == ("ledger", ended.id, ended.correlation_id)
        assert (event.campaign_id, event.agent_job_id) == (stream_of(owner), stream_of(working))
        assert (event.version, json.loads(event.data), event.text) == (2, {}, None)
    assert not desk.working_state.holds
    assert desk.balances(working) == desk.balances(owner) == (desk.working_state.entries[stream_of(holds[0])].cost, 0)


def test_releases_are_not_in_the_receipts_and_keep_positions_without_gaps() -> None:
    desk = Desk()
    working = stream_in(desk, "job", "running")
    desk.accept(reserve(agent_job_id=working["id"]), reserve(agent_job_id=working["id"]))

    receipts = desk.batch(later(working, "completed"), campaign())

    assert [receipt.position for receipt in receipts if isinstance(receipt, Receipt)] == [5, 8]
    assert [event.position for event in desk.working_state.events] == list(range(1, 9))


@pytest.mark.parametrize("end", ENDS)
def test_the_end_of_a_job_leaves_the_holds_of_others_alone(end: str) -> None:
    desk = Desk()
    owner = stream_in(desk, "campaign", "active")
    working, other = (stream_in(desk, "job", "running", campaign_id=owner["id"]) for _ in range(2))
    kept = [reserve("2", agent_job_id=other["id"]), reserve("3", campaign_id=owner["id"]), reserve("4")]
    desk.accept(*kept, reserve("8", agent_job_id=working["id"]))

    desk.accept(later(working, end))

    assert list(desk.working_state.holds) == [stream_of(hold) for hold in kept]
    assert desk.balances(owner) == (0, 5)
    assert desk.balances(other) == (0, 2)


def test_an_overdue_hold_counts_until_it_expires_and_is_released_with_its_job() -> None:
    desk = Desk()
    working = stream_in(desk, "job", "running")
    held = reserve("3", expires_in=1, agent_job_id=working["id"])
    desk.accept(held)
    desk.pass_seconds(10)
    held_when_overdue = desk.account(working).held

    desk.accept(later(working, "completed"))

    assert held_when_overdue == 3
    assert desk.status(held) == "released"


def test_a_job_that_ends_again_after_a_retry_releases_only_what_is_held_by_then() -> None:
    desk = Desk()
    working = stream_in(desk, "job", "running")
    desk.accept(reserve("1", agent_job_id=working["id"]), later(working, "failed"), later(working, "retried"))
    second = reserve("2", agent_job_id=working["id"])
    desk.accept(second)

    desk.accept(later(working, "cancelled"))

    released = [event.stream_id for event in desk.working_state.events if event.type == "cost.released"]
    assert released[1:] == [stream_of(second)]


def test_a_refused_end_releases_nothing() -> None:
    desk = Desk()
    working = stream_in(desk, "job", "pending")
    desk.accept(reserve("1", agent_job_id=working["id"]))

    desk.refuse(later(working, "completed"))

    assert desk.balances(working) == (0, 1)
    assert len(desk.working_state.holds) == 1


def test_a_repeated_end_releases_nothing_again() -> None:
    desk = Desk()
    working = stream_in(desk, "job", "running")
    end = later(working, "completed")
    desk.accept(reserve(agent_job_id=working["id"]), end)
    before = desk.snapshot()

    receipt = desk.accept(end)

    assert receipt.duplicate
    assert desk.snapshot() == before


def test_a_release_never_takes_an_id_that_its_holds_sender_could_foresee() -> None:
    rehearsal, desk = Desk(), Desk()
    working = job()
    held, end = {**reserve(agent_job_id=working["id"]), "stream_id": unknown()}, later(working, "cancelled")
    rehearsal.accept(working, held, end)
    foreseen = str(rehearsal.last.id)
    desk.accept(working, {**held, "id": foreseen})
    desk.pass_seconds(0.000001)

    desk.accept(end)

    identities = [(event.category, event.stream_id, event.id) for event in desk.working_state.events]
    assert len(set(identities)) == len(identities), "the unique index would refuse the whole group of requests"


@pytest.mark.parametrize(("seconds", "due"), [(0, False), (59.999999, False), (60, True), (3600, True)])
def test_a_hold_expires_only_when_it_is_due(seconds: float, due: bool) -> None:
    desk = Desk()
    owner = stream_in(desk, "campaign", "active")
    held = reserve("5", expires_in=60, campaign_id=owner["id"])
    desk.accept(held)
    desk.pass_seconds(seconds)

    verdict = desk.expire(held)

    assert isinstance(verdict, Receipt if due else IllegalTransition)
    assert desk.status(held) == ("expired" if due else "held")
    assert desk.balances(owner) == (0, 0 if due else 5)
    assert (desk.last.actor == "ledger") == due


def test_a_hold_without_expires_in_lasts_nine_hundred_seconds() -> None:
    desk = Desk()
    held = reserve()
    desk.accept(held)

    expires_at = desk.working_state.entries[stream_of(held)].expires_at

    assert expires_at is not None
    assert (expires_at - NOW).total_seconds() == 900


@pytest.mark.parametrize("status", ["settled", "released", "expired", None])
def test_what_is_not_held_does_not_expire(status: str | None) -> None:
    desk = Desk()
    entry = stream_in(desk, "cost", status)
    desk.pass_seconds(1000)
    before = desk.snapshot()

    verdict = desk.expire(entry)

    assert desk.snapshot() == before
    assert isinstance(verdict, IllegalTransition)
    assert (verdict.status, verdict.allowed_from) == (status, ["held"])
