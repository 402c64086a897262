"""Credits: money that came back has a cost below 0, and stays a credit however it is adjusted."""

import pytest

from ledger.domain.errors import IllegalTransition, InvalidEvent
from ledger.domain.event import Receipt
from tests.domain.helpers import MemoryLedger, later, shape_error
from tests.events import campaign, cost, credit, event, job, reserve


def test_a_credit_lowers_what_is_spent_below_zero_and_makes_room_for_holds() -> None:
    ledger, owner = MemoryLedger(), campaign("10")
    working = job(owner["id"], budget="5")
    ledger.accept(owner, working, cost("1", agent_job_id=working["id"]))

    receipt = ledger.send(credit("3.000000000000000001", agent_job_id=working["id"]))

    assert isinstance(receipt, Receipt)
    assert receipt.over_budget is None
    assert ledger.balances(owner) == ledger.balances(working)
    assert str(ledger.balances(owner)[0]) == "-2.000000000000000001"
    ledger.accept(reserve("7", agent_job_id=working["id"]))


def test_a_credit_of_an_exceeded_budget_is_not_reported_as_over_it() -> None:
    ledger, owner = MemoryLedger(), campaign("1")
    ledger.accept(owner, cost("9", campaign_id=owner["id"]))

    receipt = ledger.send(credit("2", campaign_id=owner["id"]))

    assert isinstance(receipt, Receipt)
    assert receipt.over_budget is None


def test_a_credit_can_be_adjusted_down_to_nothing_but_never_becomes_a_cost() -> None:
    ledger, back = MemoryLedger(), credit("3")
    ledger.accept(back, later(back, "adjusted", amount="-2"), later(back, "adjusted", amount="5"))

    above = ledger.refuse(later(back, "adjusted", amount="0.000000000000000001"))
    tokens = ledger.refuse(later(back, "adjusted", amount="-1", tokens_used=1))

    assert isinstance(above, InvalidEvent)
    assert above.errors[0]["path"] == "$.data.amount"
    assert isinstance(tokens, InvalidEvent)
    assert tokens.errors[0] == {"index": 0, "path": "$.data.tokens_used", "message": "a credit has no tokens"}


@pytest.mark.parametrize("amount", ["0", "-1", "-0"])
def test_a_credit_of_nothing_is_refused(amount: str) -> None:
    assert shape_error("cost.credited", {**credit()["data"], "amount": amount})


@pytest.mark.parametrize("field", ["cost", "usage", "tokens_used"])
def test_a_credit_has_no_cost_usage_or_tokens(field: str) -> None:
    sent = {**credit()["data"], field: {} if field == "usage" else 1}

    assert f"unknown field `{field}`" in shape_error("cost.credited", sent)


@pytest.mark.parametrize("back", ["1", "0.999999999999999999"])
def test_a_campaign_can_be_deleted_only_if_costs_and_credits_add_up_to_nothing(back: str) -> None:
    ledger, owner = MemoryLedger(), campaign()
    ledger.accept(owner, cost("1", campaign_id=owner["id"]), credit(back, campaign_id=owner["id"]))

    verdict = ledger.send(event("campaign.deleted", {}, stream_id=owner["id"]))

    assert isinstance(verdict, Receipt) if back == "1" else isinstance(verdict, IllegalTransition)


def test_a_retried_credit_is_a_duplicate_also_if_it_names_what_it_inherited() -> None:
    ledger, owner = MemoryLedger(), campaign(currency="EUR")
    ledger.accept(owner)
    back = credit("3.0", campaign_id=owner["id"])
    ledger.accept(back)

    again = ledger.send({**back, "data": {**back["data"], "amount": 3, "currency": "EUR"}})

    assert isinstance(again, Receipt)
    assert again.duplicate
