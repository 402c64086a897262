"""`cost.denied`: the record of a refused hold, written once while nothing changes."""

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest

from ledger.domain.catalogue import decode_stored
from ledger.domain.errors import BudgetExceeded
from ledger.domain.event import Receipt, Request
from ledger.domain.judge import judge
from ledger.domain.working_state import Denial
from tests.domain.helpers import Desk, Sent, candidate, later, stream_in, stream_of, unknown
from tests.events import campaign, cost, job, reserve


def denied(desk: Desk, sent: Sent) -> Denial:
    """The denial of a hold that must be refused for money."""
    desk.working_state.denials.clear()
    refusal = desk.refuse(sent)
    assert isinstance(refusal, BudgetExceeded)
    (denial,) = desk.working_state.denials.values()
    return denial


def test_a_denial_says_what_was_asked_and_the_members_of_the_refusal() -> None:
    desk = Desk()
    owner = stream_in(desk, "campaign", "active", budget="1", currency="EUR")
    working = stream_in(desk, "job", "running", campaign_id=owner["id"])
    asked = reserve("2.50", agent_job_id=working["id"], model_used="a model", provider="a provider", expires_in=60)
    asked["data"]["description"] = "a description"
    sent = {**asked, "stream_id": unknown(), "correlation_id": unknown(), "occurred_at": "2024-12-31T00:00:00Z"}

    denial = denied(desk, sent)

    assert json.loads(denial.candidate.data) == {
        "reserve_stream_id": sent["stream_id"],
        "reserve_id": sent["id"],
        "resource_type": "llm_api",
        "amount": "2.5",
        "currency": "EUR",
        "expires_in": 60,
        "model_used": "a model",
        "provider": "a provider",
        "agent_job_id": working["id"],
        "scopes": [
            {"scope": "campaign", "limit": "1", "spent": "0", "held": "0", "requested": "2.5", "available": "1"}
        ],
    }
    assert denial.candidate.text == '{"description":"a description"}'
    assert (denial.campaign_id, denial.agent_job_id) == (stream_of(owner), stream_of(working))
    assert denial.candidate.actor == "ledger"
    assert denial.candidate.occurred_at == datetime(2024, 12, 31, tzinfo=UTC)
    assert denial.candidate.causation_id == UUID(sent["id"])
    assert denial.candidate.correlation_id == UUID(sent["correlation_id"])


def test_a_denial_can_be_read_again_from_what_is_stored() -> None:
    desk = Desk()
    owner = stream_in(desk, "campaign", "active", budget="1")

    stored = denied(desk, reserve("2", campaign_id=owner["id"], description="why")).candidate

    assert decode_stored("cost.denied", 1, stored.data, stored.text) == stored.payload


def test_a_denial_has_a_stream_of_its_own_and_leaves_the_holds_stream_empty() -> None:
    desk = Desk()
    owner = stream_in(desk, "campaign", "active", budget="1")
    asked = {**reserve("2", campaign_id=owner["id"]), "expected_version": 0}
    before = desk.snapshot()

    denial = denied(desk, asked).candidate

    assert denial.stream_id == denial.id != stream_of(asked)
    assert desk.working_state.version("cost", stream_of(asked)) == 0
    assert {**desk.snapshot(), "denials": {}} == before


def test_a_denial_keeps_its_id_while_nothing_changes_however_often_the_hold_is_sent() -> None:
    desk = Desk()
    owner, elsewhere = (stream_in(desk, "campaign", "active", budget="1") for _ in range(2))
    asked = reserve("2", campaign_id=owner["id"])
    first = denied(desk, asked).candidate.id
    desk.accept(cost("1", campaign_id=elsewhere["id"]))
    desk.pass_seconds(60)

    again = denied(desk, asked).candidate.id

    assert again == first


@pytest.mark.parametrize("change", ["spent", "held", "limit"])
def test_a_denial_has_another_id_once_a_balance_has_changed(change: str) -> None:
    desk = Desk()
    owner = stream_in(desk, "campaign", "active", budget="1")
    asked = reserve("2", campaign_id=owner["id"])
    first = denied(desk, asked).candidate.id
    changes = {
        "spent": cost("0.5", campaign_id=owner["id"]),
        "held": reserve("0.5", campaign_id=owner["id"]),
        "limit": later(owner, "budget_changed", budget="1.5"),
    }
    desk.accept(changes[change])

    again = denied(desk, asked).candidate.id

    assert again != first


def test_a_denial_has_another_id_once_another_limit_fails_too() -> None:
    desk = Desk()
    owner = stream_in(desk, "campaign", "active", budget="5")
    working = job(owner["id"], budget="1")
    desk.accept(working)
    asked = reserve("2", agent_job_id=working["id"])
    first = denied(desk, asked).candidate.id
    desk.accept(later(owner, "budget_changed", budget="1"))

    again = denied(desk, asked).candidate.id

    assert again != first


def test_two_holds_are_denied_under_two_ids() -> None:
    desk = Desk()
    owner = stream_in(desk, "campaign", "active", budget="1")
    asked = {**reserve("2", campaign_id=owner["id"]), "stream_id": unknown()}

    ids = {
        denied(desk, sent).candidate.id
        for sent in (asked, {**asked, "id": unknown()}, {**asked, "stream_id": unknown()})
    }

    assert len(ids) == 3


def test_the_same_hold_may_succeed_after_it_was_denied() -> None:
    desk = Desk()
    owner = stream_in(desk, "campaign", "active", budget="1")
    asked = reserve("2", campaign_id=owner["id"])
    denied(desk, asked)
    desk.accept(later(owner, "budget_changed", budget="2"))

    receipt = desk.accept(asked)

    assert (receipt.version, receipt.duplicate) == (1, False)


def test_a_batch_refused_as_a_whole_is_not_denied() -> None:
    desk = Desk()
    owner = stream_in(desk, "campaign", "active", budget="1")

    (refusal,) = desk.batch(cost(), reserve("2", campaign_id=owner["id"]))

    assert isinstance(refusal, BudgetExceeded)
    assert refusal.index == 1
    assert not desk.working_state.denials


def test_independent_holds_are_denied_each_by_itself() -> None:
    desk = Desk()
    owner = campaign(budget="3")
    holds = [reserve(amount, campaign_id=owner["id"]) for amount in ("4", "2", "2", "1")]

    verdicts = desk.independent(owner, *holds)

    assert [isinstance(verdict, Receipt) for verdict in verdicts] == [True, False, True, False, True]
    reserved = [denial.candidate.causation_id for denial in desk.working_state.denials.values()]
    assert reserved == [stream_of(holds[0]), stream_of(holds[2])]


@pytest.mark.parametrize("sent", [reserve(campaign_id=unknown()), later(reserve(), "released")])
def test_only_refusals_for_money_are_recorded(sent: Sent) -> None:
    desk = Desk()

    desk.refuse(sent)

    assert not desk.working_state.denials


def test_a_denial_keeps_the_seal_of_the_text_that_was_asked_with() -> None:
    desk = Desk()
    owner = stream_in(desk, "campaign", "active", budget="1")
    asked = candidate(reserve("2", campaign_id=owner["id"], description="why"))

    judge(desk.working_state, Request([asked]))

    (denial,) = desk.working_state.denials.values()
    seal = denial.candidate.text, denial.candidate.text_salt, denial.candidate.text_commitment
    assert seal == (asked.text, asked.text_salt, asked.text_commitment)
    assert asked.text == '{"description":"why"}'
