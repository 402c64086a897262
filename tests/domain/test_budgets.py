"""Budgets: holds must fit every budget, facts are never refused, and both change the balances."""

from decimal import Decimal
from typing import Any

import pytest

from ledger.domain.errors import BudgetExceeded, InvalidEvent
from tests.domain.helpers import MemoryLedger, Sent, later, stream_in, stream_of
from tests.events import campaign, cost, job, reserve

SMALLEST = "0.000000000000000001"


def campaign_and_job(budget: str, cap: str | None) -> tuple[MemoryLedger, Sent, Sent]:
    """Create a campaign with a budget, and a job of it with another budget (`cap`)."""
    ledger = MemoryLedger()
    owner = campaign(budget=budget)
    working = job(owner["id"], **({"budget": cap} if cap else {}))
    ledger.accept(owner, working)
    return ledger, owner, working


def scope(opened: Sent, *amounts: str) -> dict[str, str]:
    """Return the scope of a campaign or job in a refusal."""
    names = ("limit", "spent", "held", "requested", "available")
    noun = opened["type"].partition(".")[0]
    return {"scope": noun, "id": opened["id"], **dict(zip(names, amounts, strict=True))}


@pytest.mark.parametrize(
    ("budget", "cap", "fits", "failing"),
    [
        ("10", "5", "5", []),
        ("5", "10", "5", []),
        ("10", None, "10", []),
        ("10", "5", "5.0000000001", ["job"]),
        ("5", "10", "5.0000000001", ["campaign"]),
        ("5", "5", "5.0000000001", ["job", "campaign"]),
        ("10", None, "10.000000000000000001", ["campaign"]),
        ("0", "0", SMALLEST, ["job", "campaign"]),
    ],
)
def test_a_hold_must_fit_every_budget_that_it_counts_for(
    budget: str, cap: str | None, fits: str, failing: list[str]
) -> None:
    ledger, owner, working = campaign_and_job(budget, cap)

    verdict = ledger.send(reserve(fits, agent_job_id=working["id"]))

    if failing:
        assert isinstance(verdict, BudgetExceeded)
        assert [failed["scope"] for failed in verdict.scopes] == failing
        assert ledger.balances(owner) == (0, 0)
        assert not ledger.working_state.holds
    else:
        assert ledger.balances(owner) == ledger.balances(working) == (0, Decimal(fits))


def test_a_refused_hold_lists_what_is_spent_held_and_available_for_every_exceeded_budget() -> None:
    ledger, owner, working = campaign_and_job("10", "5")
    ledger.accept(cost("6.50", campaign_id=owner["id"]), cost("1.25", agent_job_id=working["id"]))
    ledger.accept(reserve("0.5", agent_job_id=working["id"]))

    refusal = ledger.refuse(reserve("9", agent_job_id=working["id"]))

    assert isinstance(refusal, BudgetExceeded)
    assert refusal.members == {
        "currency": "USD",
        "scopes": [
            scope(working, "5", "1.25", "0.5", "9", "3.25"),
            scope(owner, "10", "7.75", "0.5", "9", "1.75"),
        ],
    }


def test_only_exceeded_budgets_are_listed_and_available_is_never_negative() -> None:
    ledger, _, working = campaign_and_job("100", "5")
    ledger.accept(cost("7", agent_job_id=working["id"]))

    refusal = ledger.refuse(reserve(SMALLEST, agent_job_id=working["id"]))

    assert refusal.members["scopes"] == [scope(working, "5", "7", "0", SMALLEST, "0")]


def test_a_refusal_uses_the_currency_of_the_budget() -> None:
    ledger = MemoryLedger()
    owner = stream_in(ledger, "campaign", "active", budget="1", currency="EUR")

    refusal = ledger.refuse(reserve("2", campaign_id=owner["id"]))

    assert refusal.members["currency"] == "EUR"


def test_the_available_amount_of_a_refusal_is_exactly_what_still_fits() -> None:
    ledger, owner, _ = campaign_and_job("10", None)
    ledger.accept(cost("0.1", campaign_id=owner["id"]), reserve("0.2", campaign_id=owner["id"]))
    refusal = ledger.refuse(reserve("10", campaign_id=owner["id"]))
    available = refusal.members["scopes"][0]["available"]

    ledger.accept(reserve(available, campaign_id=owner["id"]))

    assert isinstance(ledger.refuse(reserve(SMALLEST, campaign_id=owner["id"])), BudgetExceeded)


def test_a_hold_without_campaign_or_job_always_fits() -> None:
    ledger = MemoryLedger()

    receipt = ledger.accept(reserve("9999999999.999999999999999999"))

    assert receipt.over_budget is None


@pytest.mark.parametrize(
    ("charged", "balances", "over"),
    [("0", 0, None), ("3", 3, None), ("4", 4, None), ("5", 5, None), ("5.0000000001", "5.0000000001", ["campaign"])],
)
def test_settling_frees_the_whole_hold_and_charges_the_cost(
    charged: str, balances: Any, over: list[str] | None
) -> None:
    ledger, owner, _ = campaign_and_job("5", None)
    held = reserve("4", campaign_id=owner["id"])
    ledger.accept(held)

    receipt = ledger.accept(later(held, "settled", cost=charged))

    assert ledger.balances(owner) == (Decimal(balances), 0)
    assert receipt.over_budget == over
    assert not ledger.working_state.holds


def test_a_released_hold_frees_its_amount() -> None:
    ledger, owner, working = campaign_and_job("5", "5")
    held = reserve("5", agent_job_id=working["id"])
    ledger.accept(held)

    ledger.accept(later(held, "released"))

    assert ledger.balances(owner) == ledger.balances(working) == (0, 0)
    assert ledger.accept(reserve("5", agent_job_id=working["id"])).version == 1


def test_an_expired_hold_frees_its_amount_and_can_still_be_settled() -> None:
    ledger, owner, _ = campaign_and_job("5", None)
    held, other = reserve("5", campaign_id=owner["id"]), reserve("5", campaign_id=owner["id"])
    ledger.accept(held)
    ledger.pass_seconds(900)
    ledger.expire(held)
    ledger.accept(other)

    receipt = ledger.accept(later(held, "settled", cost="1"))

    assert receipt.over_budget == ["campaign"]
    assert ledger.balances(owner) == (1, 5)


def test_an_adjustment_changes_cost_and_balances_without_over_budget() -> None:
    ledger, owner, working = campaign_and_job("5", "5")
    charged = cost("4", agent_job_id=working["id"], tokens_used=10)
    ledger.accept(charged)

    up = ledger.accept(later(charged, "adjusted", amount="2.5", tokens_used=5))
    after_up = ledger.balances(owner)
    ledger.accept(later(charged, "adjusted", amount="-6.5", tokens_used=-15))

    assert (after_up, up.over_budget) == ((Decimal("6.5"), 0), None)
    assert ledger.balances(owner) == ledger.balances(working) == (0, 0)
    assert ledger.working_state.entries[stream_of(charged)].tokens_used == 0


@pytest.mark.parametrize(
    ("adjustment", "path"),
    [({"amount": "-4.0000000001"}, "$.data.amount"), ({"amount": "0", "tokens_used": -11}, "$.data.tokens_used")],
)
def test_an_adjustment_cannot_make_cost_or_tokens_negative(adjustment: Sent, path: str) -> None:
    ledger, owner, _ = campaign_and_job("5", None)
    charged = cost("4", campaign_id=owner["id"], tokens_used=10)
    ledger.accept(charged)
    before = ledger.snapshot()

    refusal = ledger.refuse(later(charged, "adjusted", **adjustment))

    assert isinstance(refusal, InvalidEvent)
    assert [error["path"] for error in refusal.errors] == [path]
    assert ledger.snapshot() == before


def test_adjustments_add_up_and_may_change_tokens_alone() -> None:
    ledger = MemoryLedger()
    charged = cost("1", tokens_used=5)
    ledger.accept(
        charged, later(charged, "adjusted", amount="-0.75"), later(charged, "adjusted", amount="0", tokens_used=-5)
    )

    refusals = [
        ledger.refuse(later(charged, "adjusted", amount="-0.26")),
        ledger.refuse(later(charged, "adjusted", amount="0", tokens_used=-1)),
    ]

    assert [refusal.slug for refusal in refusals] == ["invalid-event"] * 2
    assert ledger.accept(later(charged, "adjusted", amount="-0.25")).version == 4


@pytest.mark.parametrize("tokens", [{}, {"tokens_used": 7}])
def test_a_settled_hold_can_be_corrected_to_zero(tokens: dict[str, int]) -> None:
    ledger = MemoryLedger()
    held = reserve("1")
    ledger.accept(held, later(held, "settled", cost="3", **tokens))

    ledger.accept(later(held, "adjusted", amount="-3", tokens_used=-tokens.get("tokens_used", 0)))

    assert ledger.refuse(later(held, "adjusted", amount="0", tokens_used=-1)).slug == "invalid-event"


@pytest.mark.parametrize(
    ("budget", "cap", "charged", "over"),
    [
        ("5", "5", "5", None),
        ("5", "9", "5.0000000001", ["campaign"]),
        ("9", "5", "5.0000000001", ["job"]),
        ("5", "5", "5.0000000001", ["job", "campaign"]),
        ("5", None, "6", ["campaign"]),
    ],
)
def test_a_recorded_cost_that_exceeds_a_budget_is_accepted_and_flagged(
    budget: str, cap: str | None, charged: str, over: list[str] | None
) -> None:
    ledger, owner, working = campaign_and_job(budget, cap)

    receipt = ledger.accept(cost(charged, agent_job_id=working["id"]))

    assert receipt.over_budget == over == ledger.last.over_budget
    assert ledger.balances(owner) == ledger.balances(working) == (Decimal(charged), 0)


def test_held_money_counts_toward_over_budget() -> None:
    ledger, owner, _ = campaign_and_job("5", None)
    ledger.accept(reserve("3", campaign_id=owner["id"]))

    flags = [ledger.accept(cost(charged, campaign_id=owner["id"])).over_budget for charged in ("2", SMALLEST, "0")]

    assert flags == [None, ["campaign"], ["campaign"]]


def test_only_facts_are_flagged_when_the_budget_is_already_exceeded() -> None:
    ledger, owner, working = campaign_and_job("5", None)
    held = reserve("1", campaign_id=owner["id"])
    charged = cost("6", campaign_id=owner["id"])
    ledger.accept(held, charged)

    receipts = [
        ledger.accept(later(charged, "adjusted", amount="1")),
        ledger.accept(later(held, "released")),
        ledger.accept(later(owner, "activated")),
        ledger.accept(later(working, "started")),
    ]

    assert [receipt.over_budget for receipt in receipts] == [None] * 4


def test_a_budget_can_be_set_below_what_is_spent_and_the_next_hold_is_refused() -> None:
    ledger, owner, _ = campaign_and_job("10", None)
    held = reserve("3", campaign_id=owner["id"])
    ledger.accept(cost("4", campaign_id=owner["id"]), held)

    ledger.accept(later(owner, "budget_changed", budget="2"))
    refusal = ledger.refuse(reserve("1", campaign_id=owner["id"]))
    settled = ledger.accept(later(held, "settled", cost="3"))

    assert refusal.members["scopes"] == [scope(owner, "2", "4", "3", "1", "0")]
    assert settled.over_budget == ["campaign"]
    assert ledger.balances(owner) == (7, 0)


def test_a_change_of_a_campaign_without_a_budget_keeps_its_limit() -> None:
    ledger, owner = MemoryLedger(), campaign("10")
    ledger.accept(owner, later(owner, "budget_changed", reason="unchanged"))

    refusal = ledger.refuse(reserve("11", campaign_id=owner["id"]))

    assert refusal.members["scopes"] == [scope(owner, "10", "0", "0", "11", "10")]
    ledger.accept(later(owner, "budget_changed", budget=None), reserve("11", campaign_id=owner["id"]))


def test_a_refused_hold_passes_after_the_budget_is_raised() -> None:
    ledger, owner, _ = campaign_and_job("1", None)
    held = reserve("2", campaign_id=owner["id"])
    ledger.refuse(held)

    ledger.accept(later(owner, "budget_changed", budget="2"))

    assert ledger.accept(held).version == 1


def test_sums_can_exceed_the_range_of_one_amount() -> None:
    ledger, owner, _ = campaign_and_job("9999999999", None)
    for _ in range(2):
        ledger.accept(cost("9000000000", campaign_id=owner["id"]))
    charged = cost("9999999999.999999999999999999", campaign_id=owner["id"])
    ledger.accept(charged)

    ledger.accept(later(charged, "adjusted", amount="9999999999.999999999999999999"))

    assert ledger.account(owner).spent == Decimal("37999999999.999999999999999998")


def test_holds_of_the_smallest_unit_add_up_exactly() -> None:
    ledger, owner, _ = campaign_and_job("1", None)

    ledger.accept(*(reserve(SMALLEST, campaign_id=owner["id"]) for _ in range(3)))

    assert ledger.balances(owner) == (0, Decimal("0.000000000000000003"))
