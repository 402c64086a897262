"""Every event type in every status of its noun, by the CONTRACT's from → to column, and the special rules."""

from typing import Any
from uuid import UUID

import pytest

from ledger.domain.catalogue import CATALOGUE
from ledger.domain.errors import IllegalTransition, InvalidEvent
from ledger.domain.event import Receipt
from tests.domain.contract import SAME, TRANSITIONS
from tests.domain.helpers import DATA, Desk, Sent, later, stream_in
from tests.events import campaign, content, cost, job, reserve

STATUSES = {
    "campaign": ["draft", "active", "paused", "completed", "archived", "deleted"],
    "content": ["draft", "review", "approved", "published", "archived", "deleted"],
    "job": ["pending", "running", "completed", "failed", "cancelled", "deleted"],
    "cost": ["held", "settled", "released", "expired"],
}

CASES = [(name, status) for name in TRANSITIONS for status in [None, *STATUSES[name.split(".")[0]]]]


def is_allowed(name: str, status: str | None) -> bool:
    allowed_from = TRANSITIONS[name][0].split()
    return status in allowed_from if allowed_from else status is None


def sent_in(desk: Desk, name: str, status: str | None) -> Sent:
    noun, verb = name.split(".")
    return later(stream_in(desk, noun, status), verb, **DATA[name])


def test_the_table_has_every_event_type_that_clients_send() -> None:
    assert {name for name, kind in CATALOGUE.items() if kind.by_service} == set(CATALOGUE) - set(TRANSITIONS)
    assert {name for name in set(CATALOGUE) - set(TRANSITIONS) if not name.startswith("ledger.")} == {
        "cost.expired",
        "cost.denied",
    }


@pytest.mark.parametrize(("name", "status"), [case for case in CASES if is_allowed(*case)])
def test_an_event_passes_in_the_statuses_of_its_row(name: str, status: str | None) -> None:
    desk = Desk()
    sent = sent_in(desk, name, status)

    desk.accept(sent)

    to = TRANSITIONS[name][1]
    assert desk.status(sent) == (status if to == SAME else to)


@pytest.mark.parametrize(("name", "status"), [case for case in CASES if not is_allowed(*case)])
def test_an_event_is_illegal_in_every_other_status(name: str, status: str | None) -> None:
    desk = Desk()
    sent = sent_in(desk, name, status)
    before = desk.snapshot()

    refusal = desk.refuse(sent)

    assert isinstance(refusal, IllegalTransition)
    assert refusal.status == status
    assert refusal.allowed_from == TRANSITIONS[name][0].split()
    assert desk.snapshot() == before


@pytest.mark.parametrize(
    "opened", [campaign(), content(), job(), cost(), reserve()], ids=lambda opened: str(opened["type"])
)
def test_a_first_event_with_an_id_of_its_own_opens_no_stream_twice(opened: Sent) -> None:
    desk = Desk()
    desk.accept(opened)

    refusal = desk.refuse(later(opened, opened["type"].split(".")[1], **opened["data"]))

    assert isinstance(refusal, IllegalTransition)
    assert (refusal.status, refusal.allowed_from) == (desk.status(opened), [])


def a_held_cost(desk: Desk, **named: str) -> None:
    desk.accept(reserve(**named))


def a_recorded_cost(desk: Desk, **named: str) -> None:
    desk.accept(cost(**named))


@pytest.mark.parametrize("spend", [a_held_cost, a_recorded_cost])
@pytest.mark.parametrize("status", ["draft", "archived"])
def test_a_campaign_with_money_on_it_is_not_deleted(status: str, spend: Any) -> None:
    desk = Desk()
    opened = campaign()
    desk.accept(opened)
    spend(desk, campaign_id=opened["id"])
    if status == "archived":
        desk.accept(later(opened, "archived"))

    refusal = desk.refuse(later(opened, "deleted"))

    assert isinstance(refusal, IllegalTransition)
    assert refusal.status == status
    assert "1 USD is spent" in refusal.detail or "1 is held" in refusal.detail


def test_a_campaign_is_deleted_once_its_holds_are_released_and_its_costs_corrected_to_nothing() -> None:
    desk = Desk()
    opened = campaign()
    held, charged = reserve(campaign_id=opened["id"]), cost("2", campaign_id=opened["id"])
    desk.accept(opened, held, charged, later(held, "released"), later(charged, "adjusted", amount="-2"))

    desk.accept(later(opened, "deleted"))

    assert desk.status(opened) == "deleted"


@pytest.mark.parametrize("ended", ["released", "settled", "expired", "held"])
def test_a_job_with_cost_entries_is_not_deleted_whatever_became_of_them(ended: str) -> None:
    desk = Desk()
    opened = job()
    desk.accept(opened)
    stream_in(desk, "cost", ended, agent_job_id=opened["id"])
    desk.accept(later(opened, "cancelled"))

    refusal = desk.refuse(later(opened, "deleted"))

    assert isinstance(refusal, IllegalTransition)
    assert refusal.status == "cancelled"
    assert "cost entries" in refusal.detail


def test_a_refused_hold_does_not_keep_a_job_from_being_deleted() -> None:
    desk = Desk()
    opened = job(budget="1")
    desk.accept(opened)
    desk.refuse(reserve("2", agent_job_id=opened["id"]))

    desk.accept(later(opened, "cancelled"), later(opened, "deleted"))

    assert desk.status(opened) == "deleted"


@pytest.mark.parametrize("max_retries", [0, 2])
def test_a_job_is_retried_as_often_as_it_may_and_no_more(max_retries: int) -> None:
    desk = Desk()
    opened = stream_in(desk, "job", "failed", max_retries=max_retries)
    for _ in range(max_retries):
        desk.accept(later(opened, "retried"), later(opened, "failed"))

    refusal = desk.refuse(later(opened, "retried"))

    assert isinstance(refusal, IllegalTransition)
    assert refusal.status == "failed"
    assert "retries" in refusal.detail


def test_a_job_without_a_limit_of_retries_is_retried_on_and_on() -> None:
    desk = Desk()
    opened = stream_in(desk, "job", "failed")

    for _ in range(20):
        desk.accept(later(opened, "retried"), later(opened, "failed"))

    assert desk.status(opened) == "failed"


@pytest.mark.parametrize(
    ("noun", "status", "takes"),
    [
        ("job", "pending", True),
        ("job", "running", True),
        ("job", "completed", False),
        ("job", "failed", False),
        ("job", "cancelled", False),
        ("campaign", "draft", True),
        ("campaign", "active", True),
        ("campaign", "paused", True),
        ("campaign", "completed", False),
        ("campaign", "archived", False),
    ],
)
def test_a_hold_needs_its_job_and_its_campaign_alive_but_a_fact_does_not(noun: str, status: str, takes: bool) -> None:
    desk = Desk()
    opened = stream_in(desk, noun, status)
    named = {"agent_job_id" if noun == "job" else "campaign_id": opened["id"]}

    verdict = desk.send(reserve(**named))
    desk.accept(cost(**named))

    assert isinstance(verdict, Receipt if takes else IllegalTransition)
    if isinstance(verdict, IllegalTransition):
        assert verdict.status == status
        assert verdict.allowed_from == (["pending", "running"] if noun == "job" else ["draft", "active", "paused"])


def test_a_hold_needs_the_campaign_alive_that_it_inherits_from_its_job() -> None:
    desk = Desk()
    owner = stream_in(desk, "campaign", "active")
    working = stream_in(desk, "job", "running", campaign_id=owner["id"])
    desk.accept(later(owner, "completed"))

    refusal = desk.refuse(reserve(agent_job_id=working["id"]))

    assert isinstance(refusal, IllegalTransition)
    assert refusal.status == "completed"


@pytest.mark.parametrize(
    ("changed", "path"),
    [
        ({"start_date": "2025-01-31", "end_date": "2025-01-31"}, None),
        ({"start_date": "2025-01-10"}, None),
        ({"end_date": "2025-01-01"}, None),
        ({"start_date": "2025-01-11"}, "$.data.start_date"),
        ({"end_date": "2024-12-31"}, "$.data.end_date"),
        ({"start_date": "2025-02-02", "end_date": "2025-02-01"}, "$.data.end_date"),
    ],
)
def test_changed_dates_do_not_let_a_campaign_end_before_it_starts(changed: Sent, path: str | None) -> None:
    desk = Desk()
    opened = stream_in(desk, "campaign", "active", end_date="2025-01-10")

    verdict = desk.send(later(opened, "details_changed", **changed))

    paths = [error["path"] for error in verdict.errors] if isinstance(verdict, InvalidEvent) else [None]
    assert paths == [path]


def test_changed_dates_are_those_that_later_changes_are_judged_by() -> None:
    desk = Desk()
    opened = stream_in(desk, "campaign", "active", end_date="2025-01-10")
    desk.accept(later(opened, "details_changed", end_date="2025-03-01"))
    desk.accept(later(opened, "details_changed", start_date="2025-02-01"))

    refusal = desk.refuse(later(opened, "details_changed", end_date="2025-01-10"))

    assert isinstance(refusal, InvalidEvent)


def test_an_asset_is_assigned_to_a_campaign_to_another_and_to_none() -> None:
    desk = Desk()
    first, second = stream_in(desk, "campaign", "draft"), stream_in(desk, "campaign", "archived")
    asset = stream_in(desk, "content", "draft")

    counted_for = []
    for campaign_id in (first["id"], second["id"], None):
        desk.accept(later(asset, "assigned", campaign_id=campaign_id))
        counted_for.append(desk.last.campaign_id)

    assert counted_for == [UUID(first["id"]), UUID(second["id"]), None]
    assert desk.status(asset) == "draft"


def test_a_hold_settles_after_it_expired_and_after_it_was_released() -> None:
    desk = Desk()
    owner = stream_in(desk, "campaign", "active")
    expired = stream_in(desk, "cost", "expired", campaign_id=owner["id"])
    released = stream_in(desk, "cost", "released", campaign_id=owner["id"])

    desk.accept(later(expired, "settled", cost="3"), later(released, "settled", cost="4"))

    assert desk.balances(owner) == (7, 0)
    assert not desk.working_state.holds
