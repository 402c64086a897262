"""Every event type in every status of its noun, by the contract table, and the special rules."""

from typing import Any
from uuid import UUID

import pytest

from ledger.domain.catalogue import CATALOGUE
from ledger.domain.errors import IllegalTransition, InvalidEvent
from ledger.domain.event import Receipt
from tests.domain.contract import NAMES_STREAM, SAME, TRANSITIONS
from tests.domain.helpers import DATA, MemoryLedger, Sent, later, stream_in
from tests.events import campaign, content, cost, job, reserve

STATUSES = {
    "campaign": ["draft", "active", "paused", "completed", "archived", "deleted"],
    "content": ["draft", "review", "approved", "published", "archived", "deleted"],
    "job": ["pending", "running", "completed", "failed", "cancelled", "deleted"],
    "cost": ["held", "settled", "released", "expired"],
    "price": ["published", "withdrawn"],
}

CASES = [(name, status) for name in TRANSITIONS for status in [None, *STATUSES[name.split(".")[0]]]]


def is_allowed(name: str, status: str | None) -> bool:
    allowed_from = TRANSITIONS[name][0].split()
    return status in allowed_from or (status is None and (not allowed_from or name in NAMES_STREAM))


def sent_in(ledger: MemoryLedger, name: str, status: str | None) -> Sent:
    noun, verb = name.split(".")
    return later(stream_in(ledger, noun, status), verb, **DATA[name])


def test_the_table_has_every_event_type_that_clients_send() -> None:
    sent_by_clients = {name for name, kind in CATALOGUE.items() if not kind.by_service}

    assert sent_by_clients - set(TRANSITIONS) == set(), "add a row for each of these types to tests/domain/contract.py"
    assert set(TRANSITIONS) - sent_by_clients == set(), "types in the table that ledger/domain does not declare"
    assert {name for name in set(CATALOGUE) - set(TRANSITIONS) if not name.startswith("ledger.")} == {
        "cost.expired",
        "cost.denied",
        "cost.priced",
    }


@pytest.mark.parametrize(("name", "status"), [case for case in CASES if is_allowed(*case)])
def test_an_event_is_accepted_in_the_statuses_of_its_row(name: str, status: str | None) -> None:
    ledger = MemoryLedger()
    sent = sent_in(ledger, name, status)

    ledger.accept(sent)

    to = TRANSITIONS[name][1]
    assert ledger.status(sent) == (status if to == SAME else to)


@pytest.mark.parametrize(("name", "status"), [case for case in CASES if not is_allowed(*case)])
def test_an_event_is_refused_in_every_other_status(name: str, status: str | None) -> None:
    ledger = MemoryLedger()
    sent = sent_in(ledger, name, status)
    before = ledger.snapshot()

    refusal = ledger.refuse(sent)

    assert isinstance(refusal, IllegalTransition)
    assert refusal.status == status
    assert refusal.allowed_from == TRANSITIONS[name][0].split()
    assert ledger.snapshot() == before


@pytest.mark.parametrize(
    "opened", [campaign(), content(), job(), cost(), reserve()], ids=lambda opened: str(opened["type"])
)
def test_a_second_first_event_on_a_stream_is_refused(opened: Sent) -> None:
    ledger = MemoryLedger()
    ledger.accept(opened)

    refusal = ledger.refuse(later(opened, opened["type"].split(".")[1], **opened["data"]))

    assert isinstance(refusal, IllegalTransition)
    assert (refusal.status, refusal.allowed_from) == (ledger.status(opened), [])


def a_held_cost(ledger: MemoryLedger, **named: str) -> None:
    ledger.accept(reserve(**named))


def a_recorded_cost(ledger: MemoryLedger, **named: str) -> None:
    ledger.accept(cost(**named))


@pytest.mark.parametrize("spend", [a_held_cost, a_recorded_cost])
@pytest.mark.parametrize("status", ["draft", "archived"])
def test_a_campaign_with_spent_or_held_money_cannot_be_deleted(status: str, spend: Any) -> None:
    ledger = MemoryLedger()
    opened = campaign()
    ledger.accept(opened)
    spend(ledger, campaign_id=opened["id"])
    if status == "archived":
        ledger.accept(later(opened, "archived"))

    refusal = ledger.refuse(later(opened, "deleted"))

    assert isinstance(refusal, IllegalTransition)
    assert refusal.status == status
    assert "1 USD is spent" in refusal.detail or "1 is held" in refusal.detail


def test_a_campaign_can_be_deleted_after_its_holds_are_released_and_its_costs_corrected_to_zero() -> None:
    ledger = MemoryLedger()
    opened = campaign()
    held, charged = reserve(campaign_id=opened["id"]), cost("2", campaign_id=opened["id"])
    ledger.accept(opened, held, charged, later(held, "released"), later(charged, "adjusted", amount="-2"))

    ledger.accept(later(opened, "deleted"))

    assert ledger.status(opened) == "deleted"


@pytest.mark.parametrize("ended", ["released", "settled", "expired", "held"])
def test_a_job_with_cost_entries_cannot_be_deleted_whatever_their_status(ended: str) -> None:
    ledger = MemoryLedger()
    opened = job()
    ledger.accept(opened)
    stream_in(ledger, "cost", ended, agent_job_id=opened["id"])
    ledger.accept(later(opened, "cancelled"))

    refusal = ledger.refuse(later(opened, "deleted"))

    assert isinstance(refusal, IllegalTransition)
    assert refusal.status == "cancelled"
    assert "cost entries" in refusal.detail


def test_a_job_whose_hold_was_refused_can_be_deleted() -> None:
    ledger = MemoryLedger()
    opened = job(budget="1")
    ledger.accept(opened)
    ledger.refuse(reserve("2", agent_job_id=opened["id"]))

    ledger.accept(later(opened, "cancelled"), later(opened, "deleted"))

    assert ledger.status(opened) == "deleted"


@pytest.mark.parametrize("max_retries", [0, 2])
def test_a_job_is_retried_at_most_max_retries_times(max_retries: int) -> None:
    ledger = MemoryLedger()
    opened = stream_in(ledger, "job", "failed", max_retries=max_retries)
    for _ in range(max_retries):
        ledger.accept(later(opened, "retried"), later(opened, "failed"))

    refusal = ledger.refuse(later(opened, "retried"))

    assert isinstance(refusal, IllegalTransition)
    assert refusal.status == "failed"
    assert "retries" in refusal.detail


def test_a_job_without_max_retries_can_always_be_retried() -> None:
    ledger = MemoryLedger()
    opened = stream_in(ledger, "job", "failed")

    for _ in range(20):
        ledger.accept(later(opened, "retried"), later(opened, "failed"))

    assert ledger.status(opened) == "failed"


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
        ("campaign", "paused", False),
        ("campaign", "completed", False),
        ("campaign", "archived", False),
    ],
)
def test_a_hold_needs_an_open_job_and_campaign_but_a_fact_does_not(noun: str, status: str, takes: bool) -> None:
    ledger = MemoryLedger()
    opened = stream_in(ledger, noun, status)
    named = {"agent_job_id" if noun == "job" else "campaign_id": opened["id"]}

    verdict = ledger.send(reserve(**named))
    ledger.accept(cost(**named))

    assert isinstance(verdict, Receipt if takes else IllegalTransition)
    if isinstance(verdict, IllegalTransition):
        assert verdict.status == status
        assert verdict.allowed_from == (["pending", "running"] if noun == "job" else ["draft", "active"])


@pytest.mark.parametrize("closing", ["completed", "paused"])
def test_a_hold_needs_the_campaign_inherited_from_its_job_to_be_open(closing: str) -> None:
    ledger = MemoryLedger()
    owner = stream_in(ledger, "campaign", "active")
    working = stream_in(ledger, "job", "running", campaign_id=owner["id"])
    ledger.accept(later(owner, closing))

    refusal = ledger.refuse(reserve(agent_job_id=working["id"]))

    assert isinstance(refusal, IllegalTransition)
    assert refusal.status == closing


def test_a_pause_stops_new_holds_only_and_ends_with_the_activation() -> None:
    ledger = MemoryLedger()
    owner = stream_in(ledger, "campaign", "active")
    held, refused = reserve(campaign_id=owner["id"]), reserve(campaign_id=owner["id"])
    ledger.accept(held, later(owner, "paused"))

    ledger.refuse(refused)
    ledger.accept(later(held, "settled", cost="3"), cost("1", campaign_id=owner["id"]), job(owner["id"]))
    ledger.accept(later(owner, "activated"), refused)

    assert ledger.balances(owner) == (4, 1)


@pytest.mark.parametrize(
    ("status", "takes"),
    [("draft", True), ("active", True), ("paused", True), ("completed", False), ("archived", False)],
)
def test_a_campaign_that_has_ended_takes_no_jobs(status: str, takes: bool) -> None:
    ledger = MemoryLedger()
    owner = stream_in(ledger, "campaign", status)

    verdict = ledger.send(job(owner["id"]))

    assert isinstance(verdict, Receipt if takes else IllegalTransition)
    if isinstance(verdict, IllegalTransition):
        assert (verdict.status, verdict.allowed_from) == (status, ["draft", "active", "paused"])


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
def test_changed_dates_cannot_make_a_campaign_end_before_it_starts(changed: Sent, path: str | None) -> None:
    ledger = MemoryLedger()
    opened = stream_in(ledger, "campaign", "active", end_date="2025-01-10")

    verdict = ledger.send(later(opened, "details_changed", **changed))

    paths = [error["path"] for error in verdict.errors] if isinstance(verdict, InvalidEvent) else [None]
    assert paths == [path]


def test_later_changes_are_judged_by_the_changed_dates() -> None:
    ledger = MemoryLedger()
    opened = stream_in(ledger, "campaign", "active", end_date="2025-01-10")
    ledger.accept(later(opened, "details_changed", end_date="2025-03-01"))
    ledger.accept(later(opened, "details_changed", start_date="2025-02-01"))

    refusal = ledger.refuse(later(opened, "details_changed", end_date="2025-01-10"))

    assert isinstance(refusal, InvalidEvent)


def test_an_asset_can_be_assigned_to_a_campaign_to_another_and_to_none() -> None:
    ledger = MemoryLedger()
    first, second = stream_in(ledger, "campaign", "draft"), stream_in(ledger, "campaign", "archived")
    asset = stream_in(ledger, "content", "draft")

    counted_for = []
    for campaign_id in (first["id"], second["id"], None):
        ledger.accept(later(asset, "assigned", campaign_id=campaign_id))
        counted_for.append(ledger.last.campaign_id)

    assert counted_for == [UUID(first["id"]), UUID(second["id"]), None]
    assert ledger.status(asset) == "draft"


def test_a_hold_can_be_settled_after_it_expired_and_after_it_was_released() -> None:
    ledger = MemoryLedger()
    owner = stream_in(ledger, "campaign", "active")
    expired = stream_in(ledger, "cost", "expired", campaign_id=owner["id"])
    released = stream_in(ledger, "cost", "released", campaign_id=owner["id"])

    ledger.accept(later(expired, "settled", cost="3"), later(released, "settled", cost="4"))

    assert ledger.balances(owner) == (7, 0)
    assert not ledger.working_state.holds
