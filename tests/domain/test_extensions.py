"""Extensions of holds, and the limits in the receipts of holds."""

from datetime import timedelta

import pytest

from ledger.domain.errors import EventIdConflict, IllegalTransition
from ledger.domain.event import Limit, Receipt
from tests.domain.helpers import MemoryLedger, Sent, later, stream_in, stream_of
from tests.events import campaign, cost, event, job, reserve


def expiry(ledger: MemoryLedger, held: Sent) -> timedelta:
    """Return the time that is left until a hold expires."""
    hold = ledger.working_state.holds[stream_of(held)]
    entry = ledger.working_state.entries[stream_of(held)]
    assert hold.expires_at == entry.expires_at
    return hold.expires_at - ledger.working_state.recorded_at


@pytest.mark.parametrize("seconds", [1, 900, 604_800])
def test_an_extended_hold_expires_so_long_after_the_extension(seconds: int) -> None:
    ledger, owner = MemoryLedger(), campaign()
    held = reserve("2", campaign_id=owner["id"])
    ledger.accept(owner, held)
    ledger.pass_seconds(800)

    ledger.accept(later(held, "extended", expires_in=seconds))

    assert expiry(ledger, held) == timedelta(seconds=seconds)
    assert ledger.balances(owner) == (0, 2)
    early = ledger.expire(held)
    assert isinstance(early, IllegalTransition)
    ledger.pass_seconds(seconds)
    assert isinstance(ledger.expire(held), Receipt)
    assert ledger.balances(owner) == (0, 0)


def test_an_overdue_hold_can_be_extended_until_it_is_expired() -> None:
    ledger, held = MemoryLedger(), reserve(expires_in=1)
    ledger.accept(held)
    ledger.pass_seconds(60)

    ledger.accept(later(held, "extended", expires_in=60))

    assert isinstance(ledger.expire(held), IllegalTransition)


@pytest.mark.parametrize("status", ["settled", "released", "expired"])
def test_only_an_open_hold_can_be_extended(status: str) -> None:
    ledger = MemoryLedger()
    held = stream_in(ledger, "cost", status)

    assert isinstance(ledger.refuse(later(held, "extended")), IllegalTransition)


def test_a_hold_of_a_paused_campaign_can_be_extended() -> None:
    ledger, owner = MemoryLedger(), campaign()
    held = reserve(campaign_id=owner["id"])
    ledger.accept(owner, later(owner, "activated"), held, later(owner, "paused"))

    ledger.accept(later(held, "extended"))


def test_a_retried_extension_is_a_duplicate_and_extends_nothing() -> None:
    ledger, held = MemoryLedger(), reserve()
    extension = later(held, "extended", expires_in=60)
    ledger.accept(held, extension)
    before = ledger.working_state.holds[stream_of(held)]
    ledger.pass_seconds(30)

    again = ledger.send(extension)
    other = ledger.refuse({**extension, "data": {"expires_in": 61}})

    assert isinstance(again, Receipt)
    assert again.duplicate
    assert ledger.working_state.holds[stream_of(held)] == before
    assert isinstance(other, EventIdConflict)


def test_the_receipt_of_a_hold_has_each_limit_with_the_balances_after_it() -> None:
    ledger, owner = MemoryLedger(), campaign("10")
    working, free = job(owner["id"], budget="5"), job(owner["id"])
    ledger.accept(owner, working, free, cost("6.5", campaign_id=owner["id"]))
    job_id, campaign_id = stream_of(working), stream_of(owner)

    capped = ledger.send(held := reserve("1.50", agent_job_id=working["id"]))
    uncapped = ledger.send(reserve("0.5", agent_job_id=free["id"]))
    unlimited = ledger.send(reserve("1"))
    ledger.accept(cost("4", campaign_id=owner["id"]))
    again = ledger.send(held)

    assert isinstance(capped, Receipt)
    assert isinstance(uncapped, Receipt)
    assert isinstance(unlimited, Receipt)
    assert isinstance(again, Receipt)
    assert capped.limits == [
        Limit("job", job_id, "5", "0", "1.5", "3.5"),
        Limit("campaign", campaign_id, "10", "6.5", "1.5", "2"),
    ]
    assert uncapped.limits == [Limit("campaign", campaign_id, "10", "6.5", "2", "1.5")]
    assert unlimited.limits == []
    assert again.duplicate
    assert again.limits == [
        Limit("job", job_id, "5", "0", "1.5", "3.5"),
        Limit("campaign", campaign_id, "10", "10.5", "2", "0"),
    ]


def test_only_receipts_of_reservations_have_limits() -> None:
    ledger, owner = MemoryLedger(), campaign("10")
    held = reserve(campaign_id=owner["id"])
    ledger.accept(owner, held)

    for each in (
        cost(campaign_id=owner["id"]),
        later(held, "extended"),
        event("cost.released", {}, stream_id=held["id"]),
    ):
        receipt = ledger.send(each)
        assert isinstance(receipt, Receipt)
        assert receipt.limits is None
