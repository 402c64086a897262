"""References: the campaign and job of an event must exist, belong together and use one currency."""

from typing import Any
from uuid import UUID

import pytest

from ledger.domain.errors import CurrencyMismatch, ReferenceMismatch, UnknownReference
from tests.domain.helpers import MemoryLedger, Sent, later, shape_error, stream_in, stream_of, unknown
from tests.events import campaign, content, cost, job, reserve

NAMING_A_CAMPAIGN = [job, content, cost, reserve]
NAMING_A_JOB = [content, cost, reserve]


def counts_for(ledger: MemoryLedger) -> tuple[UUID | None, UUID | None]:
    """Return the campaign and job that the last event counts for."""
    return ledger.last.campaign_id, ledger.last.agent_job_id


@pytest.mark.parametrize("naming", NAMING_A_CAMPAIGN)
@pytest.mark.parametrize("status", [None, "deleted"])
def test_a_campaign_that_does_not_exist_cannot_be_referenced(naming: Any, status: str | None) -> None:
    ledger = MemoryLedger()
    owner = stream_in(ledger, "campaign", status)

    refusal = ledger.refuse(naming(campaign_id=owner["id"]))

    assert isinstance(refusal, UnknownReference)
    assert refusal.members == {"field": "campaign_id", "id": owner["id"]}


@pytest.mark.parametrize("naming", NAMING_A_JOB)
@pytest.mark.parametrize("status", [None, "deleted"])
def test_a_job_that_does_not_exist_cannot_be_referenced(naming: Any, status: str | None) -> None:
    ledger = MemoryLedger()
    working = stream_in(ledger, "job", status)

    refusal = ledger.refuse(naming(agent_job_id=working["id"]))

    assert isinstance(refusal, UnknownReference)
    assert refusal.members == {"field": "agent_job_id", "id": working["id"]}


@pytest.mark.parametrize("status", [None, "deleted"])
def test_an_asset_cannot_be_assigned_to_a_campaign_that_does_not_exist(status: str | None) -> None:
    ledger = MemoryLedger()
    owner = stream_in(ledger, "campaign", status)
    asset = stream_in(ledger, "content", "draft")

    refusal = ledger.refuse(later(asset, "assigned", campaign_id=owner["id"]))

    assert isinstance(refusal, UnknownReference)


def test_the_id_of_a_stream_of_another_category_is_no_reference() -> None:
    ledger = MemoryLedger()
    asset = stream_in(ledger, "content", "draft")
    owner = stream_in(ledger, "campaign", "draft")

    refusals = [ledger.refuse(cost(campaign_id=asset["id"])), ledger.refuse(cost(agent_job_id=owner["id"]))]

    assert [type(refusal) for refusal in refusals] == [UnknownReference, UnknownReference]


@pytest.mark.parametrize("status", ["draft", "active", "paused", "completed", "archived"])
@pytest.mark.parametrize("naming", [content, cost])
def test_a_campaign_in_any_status_except_deleted_can_be_referenced(naming: Any, status: str) -> None:
    ledger = MemoryLedger()
    owner = stream_in(ledger, "campaign", status)

    ledger.accept(naming(campaign_id=owner["id"]))

    assert ledger.last.campaign_id == stream_of(owner)


@pytest.mark.parametrize("naming", NAMING_A_JOB)
def test_an_event_that_names_only_a_job_counts_for_its_campaign_too(naming: Any) -> None:
    ledger = MemoryLedger()
    owner = stream_in(ledger, "campaign", "active")
    working = stream_in(ledger, "job", "running", campaign_id=owner["id"])

    ledger.accept(naming(agent_job_id=working["id"]))

    assert counts_for(ledger) == (stream_of(owner), stream_of(working))


@pytest.mark.parametrize("naming", NAMING_A_JOB)
def test_an_event_that_names_a_job_and_its_campaign_counts_for_both(naming: Any) -> None:
    ledger = MemoryLedger()
    owner = stream_in(ledger, "campaign", "active")
    working = stream_in(ledger, "job", "running", campaign_id=owner["id"])

    ledger.accept(naming(agent_job_id=working["id"], campaign_id=owner["id"]))

    assert counts_for(ledger) == (stream_of(owner), stream_of(working))


@pytest.mark.parametrize("naming", NAMING_A_JOB)
def test_a_job_of_another_campaign_is_a_mismatch(naming: Any) -> None:
    ledger = MemoryLedger()
    owner, other = stream_in(ledger, "campaign", "active"), stream_in(ledger, "campaign", "active")
    working = stream_in(ledger, "job", "running", campaign_id=owner["id"])

    refusal = ledger.refuse(naming(agent_job_id=working["id"], campaign_id=other["id"]))

    assert isinstance(refusal, ReferenceMismatch)
    assert owner["id"] in refusal.detail
    assert other["id"] in refusal.detail


@pytest.mark.parametrize("naming", NAMING_A_JOB)
def test_a_campaign_and_a_job_without_campaign_can_be_named_together(naming: Any) -> None:
    ledger = MemoryLedger()
    owner, working = stream_in(ledger, "campaign", "active"), stream_in(ledger, "job", "running")

    ledger.accept(naming(agent_job_id=working["id"], campaign_id=owner["id"]))

    assert counts_for(ledger) == (stream_of(owner), stream_of(working))


def test_a_cost_changes_the_balances_of_the_campaign_and_the_job_that_it_names() -> None:
    ledger = MemoryLedger()
    owner, working = stream_in(ledger, "campaign", "active"), stream_in(ledger, "job", "running")

    ledger.accept(cost("2", agent_job_id=working["id"], campaign_id=owner["id"]))

    assert ledger.balances(owner) == ledger.balances(working) == (2, 0)


@pytest.mark.parametrize("naming", NAMING_A_JOB)
def test_an_event_that_names_a_job_whose_campaign_was_deleted_counts_for_no_campaign(naming: Any) -> None:
    ledger = MemoryLedger()
    owner = stream_in(ledger, "campaign", "draft")
    working = stream_in(ledger, "job", "running", campaign_id=owner["id"])
    ledger.accept(later(owner, "deleted"))

    ledger.accept(naming(agent_job_id=working["id"]))

    assert counts_for(ledger) == (None, stream_of(working))
    assert ledger.balances(owner) == (0, 0)


def test_later_events_of_an_entry_count_for_the_campaign_and_job_of_the_first() -> None:
    ledger = MemoryLedger()
    owner = stream_in(ledger, "campaign", "active")
    working = stream_in(ledger, "job", "running", campaign_id=owner["id"])
    held = reserve(agent_job_id=working["id"])
    ledger.accept(held)

    resolved = []
    for verb in ("released", "settled", "adjusted"):
        ledger.accept(later(held, verb))
        resolved.append(counts_for(ledger))

    assert resolved == [(stream_of(owner), stream_of(working))] * 3


@pytest.mark.parametrize("naming", [content, cost, reserve])
def test_an_event_that_names_neither_counts_for_neither(naming: Any) -> None:
    ledger = MemoryLedger()

    ledger.accept(naming())

    assert counts_for(ledger) == (None, None)
    assert not ledger.working_state.accounts


def test_events_of_a_campaign_and_of_a_job_count_for_themselves() -> None:
    ledger = MemoryLedger()
    owner = stream_in(ledger, "campaign", "active")
    of_campaign = counts_for(ledger)

    working = stream_in(ledger, "job", "running", campaign_id=owner["id"])

    assert of_campaign == (stream_of(owner), None)
    assert counts_for(ledger) == (stream_of(owner), stream_of(working))


@pytest.mark.parametrize("naming", [cost, reserve])
@pytest.mark.parametrize("named", [{}, {"currency": "EUR"}])
def test_a_cost_counts_in_the_currency_of_its_campaign(naming: Any, named: dict[str, str]) -> None:
    ledger = MemoryLedger()
    owner = stream_in(ledger, "campaign", "active", currency="EUR")

    ledger.accept(naming("3", campaign_id=owner["id"], **named))

    assert ledger.account(owner).currency == "EUR"
    assert sum(ledger.balances(owner)) == 3


def through_the_campaign(ledger: MemoryLedger) -> Sent:
    return {"campaign_id": stream_in(ledger, "campaign", "active", currency="EUR")["id"]}


def through_the_jobs_campaign(ledger: MemoryLedger) -> Sent:
    return {"agent_job_id": stream_in(ledger, "job", "running", **through_the_campaign(ledger))["id"]}


def through_the_job(ledger: MemoryLedger) -> Sent:
    return {"agent_job_id": stream_in(ledger, "job", "running", currency="EUR")["id"]}


def through_a_job_whose_campaign_was_deleted(ledger: MemoryLedger) -> Sent:
    owner = stream_in(ledger, "campaign", "draft", currency="EUR")
    working = stream_in(ledger, "job", "running", campaign_id=owner["id"])
    ledger.accept(later(owner, "deleted"))
    return {"agent_job_id": working["id"]}


WAYS = [through_the_campaign, through_the_jobs_campaign, through_the_job, through_a_job_whose_campaign_was_deleted]


@pytest.mark.parametrize("naming", [cost, reserve])
@pytest.mark.parametrize("way", WAYS)
def test_a_cost_in_another_currency_than_its_campaign_or_job_is_refused(way: Any, naming: Any) -> None:
    ledger = MemoryLedger()
    named = way(ledger)

    refusal = ledger.refuse(naming(currency="USD", **named))
    accepted = ledger.accept(naming(**named))

    assert isinstance(refusal, CurrencyMismatch)
    assert refusal.members == {"currency": "USD", "expected": "EUR"}
    assert accepted.version == 1


def test_a_cost_cannot_count_for_a_campaign_and_a_job_of_different_currencies() -> None:
    ledger = MemoryLedger()
    named = {**through_the_job(ledger), "campaign_id": stream_in(ledger, "campaign", "active")["id"]}

    refusals = [ledger.refuse(cost(**named, **currency)) for currency in ({}, {"currency": "EUR"}, {"currency": "USD"})]

    assert [type(refusal) for refusal in refusals] == [CurrencyMismatch] * 3


def test_a_job_has_the_currency_of_its_campaign_and_cannot_name_one() -> None:
    ledger = MemoryLedger()
    owner = stream_in(ledger, "campaign", "active", currency="JPY")
    working = stream_in(ledger, "job", "pending", campaign_id=owner["id"])

    ledger.accept(cost(agent_job_id=working["id"]))

    assert ledger.account(working).currency == "JPY"
    assert "only for a job without a campaign" in shape_error(
        "job.queued", {**job()["data"], "campaign_id": owner["id"], "currency": "JPY"}
    )


def test_a_cost_without_campaign_and_job_can_be_in_any_currency() -> None:
    ledger = MemoryLedger()

    receipt = ledger.accept(cost(currency="CHF"))

    assert receipt.version == 1
    assert ledger.last.data == '{"resource_type":"llm_api","cost":"1","currency":"CHF"}'


def test_an_unknown_reference_is_named_in_the_refusal() -> None:
    ledger = MemoryLedger()
    nobody = unknown()
    ledger.accept(campaign())

    refusal = ledger.refuse(cost(campaign_id=nobody))

    assert nobody in refusal.detail
