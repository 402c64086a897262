"""Money: promises are judged by every limit, facts are never refused, and both move the balances."""

from decimal import Decimal
from typing import Any

import pytest

from ledger.domain.errors import BudgetExceeded, InvalidEvent
from tests.domain.helpers import Desk, Sent, later, stream_in, stream_of
from tests.events import campaign, cost, job, reserve

SMALLEST = "0.0000000001"


def campaign_and_job(budget: str, cap: str | None) -> tuple[Desk, Sent, Sent]:
    """A campaign with this budget and a job of it with this cap."""
    desk = Desk()
    owner = campaign(budget=budget)
    working = job(owner["id"], **({"budget": cap} if cap else {}))
    desk.accept(owner, working)
    return desk, owner, working


def scope(*amounts: str) -> dict[str, str]:
    return dict(zip(("scope", "limit", "spent", "held", "requested", "available"), amounts, strict=True))


@pytest.mark.parametrize(
    ("budget", "cap", "fits", "failing"),
    [
        ("10", "5", "5", []),
        ("5", "10", "5", []),
        ("10", None, "10", []),
        ("10", "5", "5.0000000001", ["job"]),
        ("5", "10", "5.0000000001", ["campaign"]),
        ("5", "5", "5.0000000001", ["job", "campaign"]),
        ("10", None, "10.0000000001", ["campaign"]),
        ("0", "0", SMALLEST, ["job", "campaign"]),
    ],
)
def test_a_hold_must_fit_every_limit_it_counts_for(budget: str, cap: str | None, fits: str, failing: list[str]) -> None:
    desk, owner, working = campaign_and_job(budget, cap)

    verdict = desk.send(reserve(fits, agent_job_id=working["id"]))

    if failing:
        assert isinstance(verdict, BudgetExceeded)
        assert [failed["scope"] for failed in verdict.scopes] == failing
        assert desk.balances(owner) == (0, 0)
        assert not desk.working_state.holds
    else:
        assert desk.balances(owner) == desk.balances(working) == (0, Decimal(fits))


def test_a_refused_hold_says_of_every_failing_limit_what_is_taken_and_what_would_fit() -> None:
    desk, owner, working = campaign_and_job("10", "5")
    desk.accept(cost("6.50", campaign_id=owner["id"]), cost("1.25", agent_job_id=working["id"]))
    desk.accept(reserve("0.5", agent_job_id=working["id"]))

    refusal = desk.refuse(reserve("9", agent_job_id=working["id"]))

    assert isinstance(refusal, BudgetExceeded)
    assert refusal.members == {
        "currency": "USD",
        "scopes": [
            scope("job", "5", "1.25", "0.5", "9", "3.25"),
            scope("campaign", "10", "7.75", "0.5", "9", "1.75"),
        ],
    }


def test_only_the_limits_that_fail_are_listed_and_nothing_available_is_shown_as_zero() -> None:
    desk, _, working = campaign_and_job("100", "5")
    desk.accept(cost("7", agent_job_id=working["id"]))

    refusal = desk.refuse(reserve(SMALLEST, agent_job_id=working["id"]))

    assert refusal.members["scopes"] == [scope("job", "5", "7", "0", SMALLEST, "0")]


def test_a_refusal_is_in_the_currency_of_its_limit() -> None:
    desk = Desk()
    owner = stream_in(desk, "campaign", "active", budget="1", currency="EUR")

    refusal = desk.refuse(reserve("2", campaign_id=owner["id"]))

    assert refusal.members["currency"] == "EUR"


def test_what_is_said_to_be_available_is_just_what_still_fits() -> None:
    desk, owner, _ = campaign_and_job("10", None)
    desk.accept(cost("0.1", campaign_id=owner["id"]), reserve("0.2", campaign_id=owner["id"]))
    refusal = desk.refuse(reserve("10", campaign_id=owner["id"]))
    available = refusal.members["scopes"][0]["available"]

    desk.accept(reserve(available, campaign_id=owner["id"]))

    assert isinstance(desk.refuse(reserve(SMALLEST, campaign_id=owner["id"])), BudgetExceeded)


def test_a_hold_without_campaign_or_job_fits_always() -> None:
    desk = Desk()

    receipt = desk.accept(reserve("9999999999.9999999999"))

    assert receipt.over_budget is None


@pytest.mark.parametrize(
    ("charged", "balances", "over"),
    [("0", 0, None), ("3", 3, None), ("4", 4, None), ("5", 5, None), ("5.0000000001", "5.0000000001", ["campaign"])],
)
def test_settling_frees_the_whole_hold_and_charges_what_was_spent(
    charged: str, balances: Any, over: list[str] | None
) -> None:
    desk, owner, _ = campaign_and_job("5", None)
    held = reserve("4", campaign_id=owner["id"])
    desk.accept(held)

    receipt = desk.accept(later(held, "settled", cost=charged))

    assert desk.balances(owner) == (Decimal(balances), 0)
    assert receipt.over_budget == over
    assert not desk.working_state.holds


def test_a_released_hold_gives_its_money_back() -> None:
    desk, owner, working = campaign_and_job("5", "5")
    held = reserve("5", agent_job_id=working["id"])
    desk.accept(held)

    desk.accept(later(held, "released"))

    assert desk.balances(owner) == desk.balances(working) == (0, 0)
    assert desk.accept(reserve("5", agent_job_id=working["id"])).version == 1


def test_an_expired_hold_gives_its_money_back_and_its_settling_takes_it_again() -> None:
    desk, owner, _ = campaign_and_job("5", None)
    held, other = reserve("5", campaign_id=owner["id"]), reserve("5", campaign_id=owner["id"])
    desk.accept(held)
    desk.pass_seconds(900)
    desk.expire(held)
    desk.accept(other)

    receipt = desk.accept(later(held, "settled", cost="1"))

    assert receipt.over_budget == ["campaign"]
    assert desk.balances(owner) == (1, 5)


def test_an_adjustment_moves_cost_and_balances_up_and_down_and_never_says_over_budget() -> None:
    desk, owner, working = campaign_and_job("5", "5")
    charged = cost("4", agent_job_id=working["id"], tokens_used=10)
    desk.accept(charged)

    up = desk.accept(later(charged, "adjusted", amount="2.5", tokens_used=5))
    after_up = desk.balances(owner)
    desk.accept(later(charged, "adjusted", amount="-6.5", tokens_used=-15))

    assert (after_up, up.over_budget) == ((Decimal("6.5"), 0), None)
    assert desk.balances(owner) == desk.balances(working) == (0, 0)
    assert desk.working_state.entries[stream_of(charged)].tokens_used == 0


@pytest.mark.parametrize(
    ("adjustment", "path"),
    [({"amount": "-4.0000000001"}, "$.data.amount"), ({"amount": "0", "tokens_used": -11}, "$.data.tokens_used")],
)
def test_an_adjustment_takes_neither_cost_nor_tokens_below_zero(adjustment: Sent, path: str) -> None:
    desk, owner, _ = campaign_and_job("5", None)
    charged = cost("4", campaign_id=owner["id"], tokens_used=10)
    desk.accept(charged)
    before = desk.snapshot()

    refusal = desk.refuse(later(charged, "adjusted", **adjustment))

    assert isinstance(refusal, InvalidEvent)
    assert [error["path"] for error in refusal.errors] == [path]
    assert desk.snapshot() == before


def test_adjustments_are_counted_together_and_tokens_may_move_without_money() -> None:
    desk = Desk()
    charged = cost("1", tokens_used=5)
    desk.accept(
        charged, later(charged, "adjusted", amount="-0.75"), later(charged, "adjusted", amount="0", tokens_used=-5)
    )

    refusals = [
        desk.refuse(later(charged, "adjusted", amount="-0.26")),
        desk.refuse(later(charged, "adjusted", amount="0", tokens_used=-1)),
    ]

    assert [refusal.slug for refusal in refusals] == ["invalid-event"] * 2
    assert desk.accept(later(charged, "adjusted", amount="-0.25")).version == 4


@pytest.mark.parametrize("tokens", [{}, {"tokens_used": 7}])
def test_what_a_settled_hold_used_may_be_corrected_down_to_nothing(tokens: dict[str, int]) -> None:
    desk = Desk()
    held = reserve("1")
    desk.accept(held, later(held, "settled", cost="3", **tokens))

    desk.accept(later(held, "adjusted", amount="-3", tokens_used=-tokens.get("tokens_used", 0)))

    assert desk.refuse(later(held, "adjusted", amount="0", tokens_used=-1)).slug == "invalid-event"


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
def test_a_recorded_cost_past_a_limit_is_kept_and_flagged(
    budget: str, cap: str | None, charged: str, over: list[str] | None
) -> None:
    desk, owner, working = campaign_and_job(budget, cap)

    receipt = desk.accept(cost(charged, agent_job_id=working["id"]))

    assert receipt.over_budget == over == desk.last.over_budget
    assert desk.balances(owner) == desk.balances(working) == (Decimal(charged), 0)


def test_money_held_counts_when_a_fact_is_flagged() -> None:
    desk, owner, _ = campaign_and_job("5", None)
    desk.accept(reserve("3", campaign_id=owner["id"]))

    flags = [desk.accept(cost(charged, campaign_id=owner["id"])).over_budget for charged in ("2", SMALLEST, "0")]

    assert flags == [None, ["campaign"], ["campaign"]]


def test_only_facts_are_flagged_when_the_limit_is_already_past() -> None:
    desk, owner, working = campaign_and_job("5", None)
    held = reserve("1", campaign_id=owner["id"])
    charged = cost("6", campaign_id=owner["id"])
    desk.accept(held, charged)

    receipts = [
        desk.accept(later(charged, "adjusted", amount="1")),
        desk.accept(later(held, "released")),
        desk.accept(later(owner, "activated")),
        desk.accept(later(working, "started")),
    ]

    assert [receipt.over_budget for receipt in receipts] == [None] * 4


def test_a_budget_may_fall_below_what_is_spent_and_the_next_hold_is_refused() -> None:
    desk, owner, _ = campaign_and_job("10", None)
    held = reserve("3", campaign_id=owner["id"])
    desk.accept(cost("4", campaign_id=owner["id"]), held)

    desk.accept(later(owner, "budget_changed", budget="2"))
    refusal = desk.refuse(reserve("1", campaign_id=owner["id"]))
    settled = desk.accept(later(held, "settled", cost="3"))

    assert refusal.members["scopes"] == [scope("campaign", "2", "4", "3", "1", "0")]
    assert settled.over_budget == ["campaign"]
    assert desk.balances(owner) == (7, 0)


def test_a_budget_that_rises_lets_the_refused_hold_pass() -> None:
    desk, owner, _ = campaign_and_job("1", None)
    held = reserve("2", campaign_id=owner["id"])
    desk.refuse(held)

    desk.accept(later(owner, "budget_changed", budget="2"))

    assert desk.accept(held).version == 1


def test_sums_grow_past_the_range_of_one_amount() -> None:
    desk, owner, _ = campaign_and_job("9999999999", None)
    for _ in range(2):
        desk.accept(cost("9000000000", campaign_id=owner["id"]))
    charged = cost("9999999999.9999999999", campaign_id=owner["id"])
    desk.accept(charged)

    desk.accept(later(charged, "adjusted", amount="9999999999.9999999999"))

    assert desk.account(owner).spent == Decimal("37999999999.9999999998")


def test_holds_of_the_smallest_unit_add_up_exactly() -> None:
    desk, owner, _ = campaign_and_job("1", None)

    desk.accept(*(reserve(SMALLEST, campaign_id=owner["id"]) for _ in range(3)))

    assert desk.balances(owner) == (0, Decimal("0.0000000003"))
