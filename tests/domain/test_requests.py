"""Requests: the order of judgement, batches that succeed or change nothing, and independent events."""

from collections.abc import Callable

import msgspec
import pytest

from ledger.domain.errors import BudgetExceeded, IllegalTransition, Refused, UnknownReference, VersionConflict
from ledger.domain.event import Receipt
from tests.domain.helpers import MemoryLedger, Sent, later, stream_in, unknown
from tests.events import campaign, content, cost, job, reserve

Breaking = Callable[[MemoryLedger], Sent]


def different_content_at_a_stale_version(ledger: MemoryLedger) -> Sent:
    opened = campaign()
    ledger.accept(opened)
    return {**opened, "data": {**opened["data"], "budget": "7"}, "expected_version": 9}


def different_content_of_a_first_event(ledger: MemoryLedger) -> Sent:
    opened = campaign()
    ledger.accept(opened)
    return {**opened, "data": {**opened["data"], "budget": "7"}}


def different_content_naming_an_unknown_campaign(ledger: MemoryLedger) -> Sent:
    charged = cost()
    ledger.accept(charged)
    return {**charged, "data": {**charged["data"], "campaign_id": unknown()}}


def a_first_event_at_version_0_of_an_existing_stream(ledger: MemoryLedger) -> Sent:
    opened = stream_in(ledger, "job", "pending")
    return {**job(), "stream_id": opened["id"], "expected_version": 0}


def a_later_event_at_version_3_of_a_missing_stream(ledger: MemoryLedger) -> Sent:
    return {**later(job(), "started"), "expected_version": 3}


def a_stale_version_and_an_unknown_campaign(ledger: MemoryLedger) -> Sent:
    return {**cost(campaign_id=unknown()), "expected_version": 1}


def a_stale_version_and_too_much_money(ledger: MemoryLedger) -> Sent:
    owner = stream_in(ledger, "campaign", "active", budget="1")
    return {**reserve("2", campaign_id=owner["id"]), "expected_version": 1}


def a_cost_on_an_existing_stream_naming_an_unknown_campaign(ledger: MemoryLedger) -> Sent:
    charged = cost()
    ledger.accept(charged)
    return {**cost(campaign_id=unknown()), "stream_id": charged["id"]}


def a_job_queued_twice_naming_an_unknown_campaign(ledger: MemoryLedger) -> Sent:
    return {**job(unknown()), "stream_id": stream_in(ledger, "job", "failed")["id"]}


def a_missing_asset_assigned_to_an_unknown_campaign(ledger: MemoryLedger) -> Sent:
    return later(content(), "assigned", campaign_id=unknown())


def an_archived_asset_assigned_to_an_unknown_campaign(ledger: MemoryLedger) -> Sent:
    return later(stream_in(ledger, "content", "archived"), "assigned", campaign_id=unknown())


def a_hold_for_an_ended_job_and_an_unknown_campaign(ledger: MemoryLedger) -> Sent:
    return reserve(agent_job_id=stream_in(ledger, "job", "failed")["id"], campaign_id=unknown())


def a_hold_for_an_ended_job_and_another_campaign(ledger: MemoryLedger) -> Sent:
    owner, other = stream_in(ledger, "campaign", "active"), stream_in(ledger, "campaign", "active")
    ended = stream_in(ledger, "job", "completed", campaign_id=owner["id"])
    return reserve(agent_job_id=ended["id"], campaign_id=other["id"])


def a_hold_for_a_completed_campaign_in_another_currency(ledger: MemoryLedger) -> Sent:
    return reserve(campaign_id=stream_in(ledger, "campaign", "completed")["id"], currency="EUR")


def a_hold_for_a_completed_campaign_past_its_budget(ledger: MemoryLedger) -> Sent:
    return reserve("1000", campaign_id=stream_in(ledger, "campaign", "completed")["id"])


def a_hold_for_an_ended_job_past_its_cap(ledger: MemoryLedger) -> Sent:
    return reserve("2", agent_job_id=stream_in(ledger, "job", "cancelled", budget="1")["id"])


@pytest.mark.parametrize(
    ("breaking", "slug"),
    [
        (different_content_at_a_stale_version, "event-id-conflict"),
        (different_content_of_a_first_event, "event-id-conflict"),
        (different_content_naming_an_unknown_campaign, "event-id-conflict"),
        (a_first_event_at_version_0_of_an_existing_stream, "version-conflict"),
        (a_later_event_at_version_3_of_a_missing_stream, "version-conflict"),
        (a_stale_version_and_an_unknown_campaign, "version-conflict"),
        (a_stale_version_and_too_much_money, "version-conflict"),
        (a_cost_on_an_existing_stream_naming_an_unknown_campaign, "illegal-transition"),
        (a_job_queued_twice_naming_an_unknown_campaign, "illegal-transition"),
        (a_missing_asset_assigned_to_an_unknown_campaign, "illegal-transition"),
        (an_archived_asset_assigned_to_an_unknown_campaign, "unknown-reference"),
        (a_hold_for_an_ended_job_and_an_unknown_campaign, "unknown-reference"),
        (a_hold_for_an_ended_job_and_another_campaign, "reference-mismatch"),
        (a_hold_for_a_completed_campaign_in_another_currency, "currency-mismatch"),
        (a_hold_for_a_completed_campaign_past_its_budget, "illegal-transition"),
        (a_hold_for_an_ended_job_past_its_cap, "illegal-transition"),
    ],
)
def test_an_event_that_breaks_two_rules_is_refused_by_the_first(breaking: Breaking, slug: str) -> None:
    ledger = MemoryLedger()
    sent = breaking(ledger)

    refusal = ledger.refuse(sent)

    assert refusal.slug == slug


def test_a_wrong_shape_is_refused_before_anything_is_judged() -> None:
    ledger = MemoryLedger()
    charged = cost()
    ledger.accept(charged)

    with pytest.raises(msgspec.ValidationError, match="at least 0"):
        ledger.send({**charged, "data": {**charged["data"], "cost": "-1"}, "expected_version": 9})


def test_a_stale_version_is_refused_with_both_versions() -> None:
    ledger = MemoryLedger()
    opened = stream_in(ledger, "job", "running")

    refusals = [ledger.refuse({**later(opened, "progressed"), "expected_version": version}) for version in (0, 1, 3)]

    assert [refusal.members for refusal in refusals] == [
        {"expected": 0, "actual": 2},
        {"expected": 1, "actual": 2},
        {"expected": 3, "actual": 2},
    ]


def test_an_event_with_the_current_version_is_accepted() -> None:
    ledger = MemoryLedger()
    charged = {**cost(), "expected_version": 0}

    ledger.accept(charged, {**later(charged, "adjusted"), "expected_version": 1})
    receipt = ledger.accept({**later(charged, "adjusted"), "expected_version": 2})

    assert receipt.version == 3


def a_busy_batch(ledger: MemoryLedger) -> list[Sent]:
    """Make events of new and existing streams that change every kind of state in the working state."""
    owner = stream_in(ledger, "campaign", "active", budget="10")
    old = stream_in(ledger, "job", "running", campaign_id=owner["id"])
    held, settling = (reserve("1", agent_job_id=old["id"]) for _ in range(2))
    ledger.accept(held, settling)
    new, asset = job(owner["id"]), content(campaign_id=owner["id"])
    return [
        new,
        asset,
        cost("1", agent_job_id=new["id"]),
        reserve("2", agent_job_id=new["id"]),
        later(settling, "settled"),
        later(settling, "adjusted", amount="-1"),
        later(owner, "budget_changed", budget="20"),
        campaign(),
        later(old, "completed"),
        later(asset, "submitted"),
    ]


def test_later_events_of_a_batch_see_the_earlier_ones() -> None:
    ledger = MemoryLedger()
    owner = campaign(budget="3")
    working = job(owner["id"])
    held = reserve("3", agent_job_id=working["id"])

    receipts = ledger.batch(
        {**owner, "expected_version": 0},
        working,
        {**later(owner, "activated"), "expected_version": 1},
        {**held, "expected_version": 0},
        {**later(held, "settled", cost="1"), "expected_version": 1},
        {**reserve("2", campaign_id=owner["id"]), "expected_version": 0},
    )

    assert [(r.version, r.position) for r in receipts if isinstance(r, Receipt)] == [
        (1, 1), (1, 2), (2, 3), (1, 4), (2, 5), (1, 6)
    ]  # fmt: skip


def test_an_event_of_a_batch_does_not_see_the_later_ones() -> None:
    ledger = MemoryLedger()
    owner = campaign()

    (refusal,) = ledger.batch(cost(campaign_id=owner["id"]), owner)

    assert isinstance(refusal, UnknownReference)
    assert refusal.index == 0
    assert not ledger.working_state.events


def test_a_version_reached_by_an_earlier_event_of_the_batch_is_stale() -> None:
    ledger = MemoryLedger()
    opened = stream_in(ledger, "job", "running")
    progress = [{**later(opened, "progressed"), "expected_version": 2} for _ in range(2)]

    (refusal,) = ledger.batch(*progress)

    assert isinstance(refusal, VersionConflict)
    assert (refusal.index, refusal.expected, refusal.actual) == (1, 2, 3)


@pytest.mark.parametrize("length", range(1, 11))
def test_a_refused_batch_leaves_the_working_state_unchanged(length: int) -> None:
    ledger = MemoryLedger()
    batch = a_busy_batch(ledger)[:length]
    before = ledger.snapshot()

    verdicts = ledger.batch(*batch, cost(campaign_id=unknown()))

    assert [type(verdict) for verdict in verdicts] == [UnknownReference]
    assert isinstance(verdicts[0], Refused)
    assert verdicts[0].index == length
    assert ledger.snapshot() == before


def test_a_batch_is_accepted_after_a_refused_one() -> None:
    ledger = MemoryLedger()
    batch = a_busy_batch(ledger)
    position = ledger.working_state.position
    ledger.batch(*batch, later(campaign(), "paused"))

    receipts = ledger.batch(*batch)

    assert all(isinstance(receipt, Receipt) and not receipt.duplicate for receipt in receipts)
    assert [event.position for event in ledger.working_state.events] == list(range(1, position + len(batch) + 2))


def test_a_refused_event_leaves_the_working_state_unchanged() -> None:
    ledger = MemoryLedger()
    a_busy_batch(ledger)
    before = ledger.snapshot()

    ledger.refuse(reserve(campaign_id=unknown()))

    assert ledger.snapshot() == before


def test_independent_events_are_judged_separately() -> None:
    ledger = MemoryLedger()
    owner = campaign(budget="5")
    job_of_nobody = job(unknown())
    held = reserve("5", campaign_id=owner["id"])

    verdicts = ledger.independent(
        owner,
        job_of_nobody,
        later(job_of_nobody, "started"),
        held,
        reserve("1", campaign_id=owner["id"]),
        {**later(held, "released"), "expected_version": 1},
        reserve("1", campaign_id=owner["id"]),
    )

    assert [type(verdict) for verdict in verdicts] == [
        Receipt, UnknownReference, IllegalTransition, Receipt, BudgetExceeded, Receipt, Receipt
    ]  # fmt: skip
    assert [verdict.index for verdict in verdicts if isinstance(verdict, Refused)] == [1, 2, 4]
    assert [verdict.position for verdict in verdicts if isinstance(verdict, Receipt)] == [1, 2, 3, 4]


def test_an_empty_batch_changes_nothing() -> None:
    ledger = MemoryLedger()

    assert ledger.batch() == []
    assert ledger.independent() == []
