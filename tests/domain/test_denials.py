"""`cost.denied`: a refused hold is recorded once while no balance changes."""

import json
from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest

from ledger.domain.catalogue import decode_stored
from ledger.domain.errors import BudgetExceeded
from ledger.domain.event import Receipt, Request
from ledger.domain.judge import judge
from ledger.domain.working_state import Denial
from tests.domain.helpers import MemoryLedger, Sent, candidate, later, stream_in, stream_of, unknown
from tests.events import campaign, cost, job, reserve


def denied(ledger: MemoryLedger, sent: Sent) -> Denial:
    """Send a hold that must be refused for money; return its denial."""
    ledger.working_state.denials.clear()
    refusal = ledger.refuse(sent)
    assert isinstance(refusal, BudgetExceeded)
    (denial,) = ledger.working_state.denials.values()
    return denial


def test_a_denial_has_the_fields_of_the_hold_and_the_members_of_the_refusal() -> None:
    ledger = MemoryLedger()
    owner = stream_in(ledger, "campaign", "active", budget="1", currency="EUR")
    working = stream_in(ledger, "job", "running", campaign_id=owner["id"])
    reserved = reserve("2.50", agent_job_id=working["id"], model_used="a model", provider="a provider", expires_in=60)
    reserved["data"]["description"] = "a description"
    sent = {**reserved, "stream_id": unknown(), "correlation_id": unknown(), "occurred_at": "2024-12-31T00:00:00Z"}

    denial = denied(ledger, sent)

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
            {
                **{"scope": "campaign", "id": owner["id"], "limit": "1", "spent": "0", "held": "0"},
                **{"requested": "2.5", "available": "1"},
            }
        ],
    }
    assert denial.candidate.text == '{"description":"a description"}'
    assert (denial.campaign_id, denial.agent_job_id) == (stream_of(owner), stream_of(working))
    assert denial.candidate.actor == "ledger"
    assert denial.candidate.occurred_at == datetime(2024, 12, 31, tzinfo=UTC)
    assert denial.candidate.causation_id == UUID(sent["id"])
    assert denial.candidate.correlation_id == UUID(sent["correlation_id"])


def test_a_stored_denial_decodes_to_the_same_payload() -> None:
    ledger = MemoryLedger()
    owner = stream_in(ledger, "campaign", "active", budget="1")

    stored = denied(ledger, reserve("2", campaign_id=owner["id"], description="why")).candidate

    assert decode_stored("cost.denied", 1, stored.data, stored.text) == stored.payload


def test_a_denial_has_a_separate_stream_and_leaves_that_of_the_hold_empty() -> None:
    ledger = MemoryLedger()
    owner = stream_in(ledger, "campaign", "active", budget="1")
    reserved = {**reserve("2", campaign_id=owner["id"]), "expected_version": 0}
    before = ledger.snapshot()

    denial = denied(ledger, reserved).candidate

    assert denial.stream_id == denial.id != stream_of(reserved)
    assert ledger.working_state.version("cost", stream_of(reserved)) == 0
    assert {**ledger.snapshot(), "denials": {}} == before


def test_a_denial_keeps_its_id_while_no_balance_changes() -> None:
    ledger = MemoryLedger()
    owner, elsewhere = (stream_in(ledger, "campaign", "active", budget="1") for _ in range(2))
    reserved = reserve("2", campaign_id=owner["id"])
    first = denied(ledger, reserved).candidate.id
    ledger.accept(cost("1", campaign_id=elsewhere["id"]))
    ledger.pass_seconds(60)

    again = denied(ledger, reserved).candidate.id

    assert again == first


@pytest.mark.parametrize("change", ["spent", "held", "limit"])
def test_a_denial_has_a_new_id_after_a_balance_changed(change: str) -> None:
    ledger = MemoryLedger()
    owner = stream_in(ledger, "campaign", "active", budget="1")
    reserved = reserve("2", campaign_id=owner["id"])
    first = denied(ledger, reserved).candidate.id
    changes = {
        "spent": cost("0.5", campaign_id=owner["id"]),
        "held": reserve("0.5", campaign_id=owner["id"]),
        "limit": later(owner, "budget_changed", budget="1.5"),
    }
    ledger.accept(changes[change])

    again = denied(ledger, reserved).candidate.id

    assert again != first


def test_a_denial_has_a_new_id_if_another_budget_is_exceeded_too() -> None:
    ledger = MemoryLedger()
    owner = stream_in(ledger, "campaign", "active", budget="5")
    working = job(owner["id"], budget="1")
    ledger.accept(working)
    reserved = reserve("2", agent_job_id=working["id"])
    first = denied(ledger, reserved).candidate.id
    ledger.accept(later(owner, "budget_changed", budget="1"))

    again = denied(ledger, reserved).candidate.id

    assert again != first


def test_a_hold_asked_for_again_with_other_ids_and_texts_is_denied_once() -> None:
    ledger = MemoryLedger()
    owner = stream_in(ledger, "campaign", "active", budget="1")
    working = job(owner["id"])
    ledger.accept(working)
    asked = {"agent_job_id": working["id"]}

    denials = ledger.independent(
        first := reserve("2", **asked),
        {**first, "id": unknown(), "stream_id": unknown(), "correlation_id": unknown()},
        reserve("2.0", **asked, description="another text"),
        reserve("2", **asked, expires_in=900, currency="USD", campaign_id=owner["id"]),
    )

    assert len(denials) == 4
    (denial,) = ledger.working_state.denials.values()
    assert denial.candidate.causation_id == UUID(first["id"])


@pytest.mark.parametrize(
    "other", [{"amount": "3"}, {"expires_in": 60}, {"model_used": "m"}, {"provider": "p"}, {"resource_type": "media"}]
)
def test_another_hold_is_a_separate_denial(other: Sent) -> None:
    ledger = MemoryLedger()
    owner = stream_in(ledger, "campaign", "active", budget="1")
    asked = reserve("2", campaign_id=owner["id"])

    ledger.independent(asked, {**asked, "data": {**asked["data"], **other}})

    assert len(ledger.working_state.denials) == 2


def test_the_same_hold_of_another_caller_is_a_separate_denial() -> None:
    ledger = MemoryLedger()
    owner = stream_in(ledger, "campaign", "active", budget="1")
    asked = candidate(reserve("2", campaign_id=owner["id"]))

    judge(ledger.working_state, Request([asked, msgspec.structs.replace(asked, actor="another")], independent=True))

    assert len(ledger.working_state.denials) == 2


def test_a_denied_hold_can_succeed_later() -> None:
    ledger = MemoryLedger()
    owner = stream_in(ledger, "campaign", "active", budget="1")
    reserved = reserve("2", campaign_id=owner["id"])
    denied(ledger, reserved)
    ledger.accept(later(owner, "budget_changed", budget="2"))

    receipt = ledger.accept(reserved)

    assert (receipt.version, receipt.duplicate) == (1, False)


def test_a_refused_batch_has_no_denial() -> None:
    ledger = MemoryLedger()
    owner = stream_in(ledger, "campaign", "active", budget="1")

    (refusal,) = ledger.batch(cost(), reserve("2", campaign_id=owner["id"]))

    assert isinstance(refusal, BudgetExceeded)
    assert refusal.index == 1
    assert not ledger.working_state.denials


def test_each_refused_hold_of_independent_events_has_a_denial() -> None:
    ledger = MemoryLedger()
    owner = campaign(budget="3")
    holds = [reserve(amount, campaign_id=owner["id"]) for amount in ("4", "2", "2", "1")]

    verdicts = ledger.independent(owner, *holds)

    assert [isinstance(verdict, Receipt) for verdict in verdicts] == [True, False, True, False, True]
    reserved = [denial.candidate.causation_id for denial in ledger.working_state.denials.values()]
    assert reserved == [stream_of(holds[0]), stream_of(holds[2])]


@pytest.mark.parametrize("sent", [reserve(campaign_id=unknown()), later(reserve(), "released")])
def test_only_holds_refused_for_money_are_recorded_as_denials(sent: Sent) -> None:
    ledger = MemoryLedger()

    ledger.refuse(sent)

    assert not ledger.working_state.denials


def test_a_denial_keeps_text_salt_and_commitment_of_the_hold() -> None:
    ledger = MemoryLedger()
    owner = stream_in(ledger, "campaign", "active", budget="1")
    reserved = candidate(reserve("2", campaign_id=owner["id"], description="why"))

    judge(ledger.working_state, Request([reserved]))

    (denial,) = ledger.working_state.denials.values()
    seal = denial.candidate.text, denial.candidate.text_salt, denial.candidate.text_commitment
    assert seal == (reserved.text, reserved.text_salt, reserved.text_commitment)
    assert reserved.text == '{"description":"why"}'
