"""What events name: it must be there and agree, and counts in one currency."""

from typing import Any
from uuid import UUID

import pytest

from ledger.domain.errors import CurrencyMismatch, ReferenceMismatch, UnknownReference
from tests.domain.helpers import Desk, Sent, later, shape_error, stream_in, stream_of, unknown
from tests.events import campaign, content, cost, job, reserve

NAMING_A_CAMPAIGN = [job, content, cost, reserve]
NAMING_A_JOB = [content, cost, reserve]


def counts_for(desk: Desk) -> tuple[UUID | None, UUID | None]:
    """What the last event was resolved to."""
    return desk.last.campaign_id, desk.last.agent_job_id


@pytest.mark.parametrize("naming", NAMING_A_CAMPAIGN)
@pytest.mark.parametrize("status", [None, "deleted"])
def test_a_campaign_that_is_not_there_cannot_be_named(naming: Any, status: str | None) -> None:
    desk = Desk()
    owner = stream_in(desk, "campaign", status)

    refusal = desk.refuse(naming(campaign_id=owner["id"]))

    assert isinstance(refusal, UnknownReference)
    assert refusal.members == {"field": "campaign_id", "id": owner["id"]}


@pytest.mark.parametrize("naming", NAMING_A_JOB)
@pytest.mark.parametrize("status", [None, "deleted"])
def test_a_job_that_is_not_there_cannot_be_named(naming: Any, status: str | None) -> None:
    desk = Desk()
    working = stream_in(desk, "job", status)

    refusal = desk.refuse(naming(agent_job_id=working["id"]))

    assert isinstance(refusal, UnknownReference)
    assert refusal.members == {"field": "agent_job_id", "id": working["id"]}


@pytest.mark.parametrize("status", [None, "deleted"])
def test_an_asset_is_not_assigned_to_a_campaign_that_is_not_there(status: str | None) -> None:
    desk = Desk()
    owner = stream_in(desk, "campaign", status)
    asset = stream_in(desk, "content", "draft")

    refusal = desk.refuse(later(asset, "assigned", campaign_id=owner["id"]))

    assert isinstance(refusal, UnknownReference)


def test_the_id_of_a_stream_of_another_noun_is_no_reference() -> None:
    desk = Desk()
    asset = stream_in(desk, "content", "draft")
    owner = stream_in(desk, "campaign", "draft")

    refusals = [desk.refuse(cost(campaign_id=asset["id"])), desk.refuse(cost(agent_job_id=owner["id"]))]

    assert [type(refusal) for refusal in refusals] == [UnknownReference, UnknownReference]


@pytest.mark.parametrize("status", ["draft", "active", "paused", "completed", "archived"])
@pytest.mark.parametrize("naming", [job, content, cost])
def test_a_campaign_in_any_status_but_deleted_can_be_named(naming: Any, status: str) -> None:
    desk = Desk()
    owner = stream_in(desk, "campaign", status)

    desk.accept(naming(campaign_id=owner["id"]))

    assert desk.last.campaign_id == stream_of(owner)


@pytest.mark.parametrize("naming", NAMING_A_JOB)
def test_what_names_only_a_job_counts_for_its_campaign_too(naming: Any) -> None:
    desk = Desk()
    owner = stream_in(desk, "campaign", "active")
    working = stream_in(desk, "job", "running", campaign_id=owner["id"])

    desk.accept(naming(agent_job_id=working["id"]))

    assert counts_for(desk) == (stream_of(owner), stream_of(working))


@pytest.mark.parametrize("naming", NAMING_A_JOB)
def test_what_names_a_job_and_its_campaign_counts_for_both(naming: Any) -> None:
    desk = Desk()
    owner = stream_in(desk, "campaign", "active")
    working = stream_in(desk, "job", "running", campaign_id=owner["id"])

    desk.accept(naming(agent_job_id=working["id"], campaign_id=owner["id"]))

    assert counts_for(desk) == (stream_of(owner), stream_of(working))


@pytest.mark.parametrize("naming", NAMING_A_JOB)
def test_a_job_and_another_campaign_than_its_own_do_not_agree(naming: Any) -> None:
    desk = Desk()
    owner, other = stream_in(desk, "campaign", "active"), stream_in(desk, "campaign", "active")
    working = stream_in(desk, "job", "running", campaign_id=owner["id"])

    refusal = desk.refuse(naming(agent_job_id=working["id"], campaign_id=other["id"]))

    assert isinstance(refusal, ReferenceMismatch)
    assert owner["id"] in refusal.detail
    assert other["id"] in refusal.detail


@pytest.mark.parametrize("naming", NAMING_A_JOB)
def test_a_campaign_and_a_job_that_has_none_may_be_named_together(naming: Any) -> None:
    desk = Desk()
    owner, working = stream_in(desk, "campaign", "active"), stream_in(desk, "job", "running")

    desk.accept(naming(agent_job_id=working["id"], campaign_id=owner["id"]))

    assert counts_for(desk) == (stream_of(owner), stream_of(working))


def test_a_cost_moves_the_balances_of_the_campaign_it_names_and_of_its_job() -> None:
    desk = Desk()
    owner, working = stream_in(desk, "campaign", "active"), stream_in(desk, "job", "running")

    desk.accept(cost("2", agent_job_id=working["id"], campaign_id=owner["id"]))

    assert desk.balances(owner) == desk.balances(working) == (2, 0)


@pytest.mark.parametrize("naming", NAMING_A_JOB)
def test_what_names_a_job_whose_campaign_was_deleted_counts_for_no_campaign(naming: Any) -> None:
    desk = Desk()
    owner = stream_in(desk, "campaign", "draft")
    working = stream_in(desk, "job", "running", campaign_id=owner["id"])
    desk.accept(later(owner, "deleted"))

    desk.accept(naming(agent_job_id=working["id"]))

    assert counts_for(desk) == (None, stream_of(working))
    assert desk.balances(owner) == (0, 0)


def test_later_events_of_a_cost_count_for_what_the_first_was_resolved_to() -> None:
    desk = Desk()
    owner = stream_in(desk, "campaign", "active")
    working = stream_in(desk, "job", "running", campaign_id=owner["id"])
    held = reserve(agent_job_id=working["id"])
    desk.accept(held)

    resolved = []
    for verb in ("released", "settled", "adjusted"):
        desk.accept(later(held, verb))
        resolved.append(counts_for(desk))

    assert resolved == [(stream_of(owner), stream_of(working))] * 3


@pytest.mark.parametrize("naming", [content, cost, reserve])
def test_what_names_neither_counts_for_nothing(naming: Any) -> None:
    desk = Desk()

    desk.accept(naming())

    assert counts_for(desk) == (None, None)
    assert not desk.working_state.accounts


def test_events_of_a_campaign_and_of_a_job_count_for_themselves() -> None:
    desk = Desk()
    owner = stream_in(desk, "campaign", "active")
    of_campaign = counts_for(desk)

    working = stream_in(desk, "job", "running", campaign_id=owner["id"])

    assert of_campaign == (stream_of(owner), None)
    assert counts_for(desk) == (stream_of(owner), stream_of(working))


@pytest.mark.parametrize("naming", [cost, reserve])
@pytest.mark.parametrize("named", [{}, {"currency": "EUR"}])
def test_a_cost_counts_in_the_currency_of_its_campaign(naming: Any, named: dict[str, str]) -> None:
    desk = Desk()
    owner = stream_in(desk, "campaign", "active", currency="EUR")

    desk.accept(naming("3", campaign_id=owner["id"], **named))

    assert desk.account(owner).currency == "EUR"
    assert sum(desk.balances(owner)) == 3


def through_the_campaign(desk: Desk) -> Sent:
    return {"campaign_id": stream_in(desk, "campaign", "active", currency="EUR")["id"]}


def through_the_jobs_campaign(desk: Desk) -> Sent:
    return {"agent_job_id": stream_in(desk, "job", "running", **through_the_campaign(desk))["id"]}


def through_the_job(desk: Desk) -> Sent:
    return {"agent_job_id": stream_in(desk, "job", "running", currency="EUR")["id"]}


def through_a_job_whose_campaign_was_deleted(desk: Desk) -> Sent:
    owner = stream_in(desk, "campaign", "draft", currency="EUR")
    working = stream_in(desk, "job", "running", campaign_id=owner["id"])
    desk.accept(later(owner, "deleted"))
    return {"agent_job_id": working["id"]}


WAYS = [through_the_campaign, through_the_jobs_campaign, through_the_job, through_a_job_whose_campaign_was_deleted]


@pytest.mark.parametrize("naming", [cost, reserve])
@pytest.mark.parametrize("way", WAYS)
def test_another_currency_than_what_a_cost_counts_for_is_refused(way: Any, naming: Any) -> None:
    desk = Desk()
    named = way(desk)

    refusal = desk.refuse(naming(currency="USD", **named))
    accepted = desk.accept(naming(**named))

    assert isinstance(refusal, CurrencyMismatch)
    assert refusal.members == {"currency": "USD", "expected": "EUR"}
    assert accepted.version == 1


def test_a_campaign_and_a_job_of_another_currency_cannot_share_a_cost() -> None:
    desk = Desk()
    named = {**through_the_job(desk), "campaign_id": stream_in(desk, "campaign", "active")["id"]}

    refusals = [desk.refuse(cost(**named, **currency)) for currency in ({}, {"currency": "EUR"}, {"currency": "USD"})]

    assert [type(refusal) for refusal in refusals] == [CurrencyMismatch] * 3


def test_a_job_takes_its_campaigns_currency_and_may_not_name_one() -> None:
    desk = Desk()
    owner = stream_in(desk, "campaign", "active", currency="JPY")
    working = stream_in(desk, "job", "pending", campaign_id=owner["id"])

    desk.accept(cost(agent_job_id=working["id"]))

    assert desk.account(working).currency == "JPY"
    assert "only for a job without a campaign" in shape_error(
        "job.queued", {**job()["data"], "campaign_id": owner["id"], "currency": "JPY"}
    )


def test_a_cost_that_counts_for_nothing_may_be_in_any_currency() -> None:
    desk = Desk()

    receipt = desk.accept(cost(currency="CHF"))

    assert receipt.version == 1
    assert desk.last.data == '{"resource_type":"llm_api","cost":"1","currency":"CHF"}'


def test_an_unknown_reference_is_named_in_the_refusal() -> None:
    desk = Desk()
    nobody = unknown()
    desk.accept(campaign())

    refusal = desk.refuse(cost(campaign_id=nobody))

    assert nobody in refusal.detail
