"""Trees of jobs: parents, inherited campaign and currency, limits of ancestors, deletion."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest

from ledger.domain.errors import (
    BudgetExceeded,
    CurrencyMismatch,
    IllegalTransition,
    InvalidEvent,
    ReferenceMismatch,
    StreamNotFound,
    UnknownReference,
)
from ledger.domain.event import Receipt, Request
from ledger.domain.job import LEVELS_MAX, JobState
from ledger.domain.judge import judge
from tests.domain.helpers import MemoryLedger, Sent, candidate, later, stream_in, stream_of, unknown
from tests.events import campaign, cost, event, job, reserve

RAN = {"agent_type": "coder", "input_data": {}, "status": "completed"}


def child(parent: Sent, **data: Any) -> Sent:
    return job(parent_job_id=parent["id"], **data)


def recorded(**data: Any) -> Sent:
    return event("job.recorded", {**RAN, **data})


def line(ledger: MemoryLedger, *budgets: str | None, **root: Any) -> list[Sent]:
    """Queue a root and a job below each job, with these budgets from the root down."""
    jobs: list[Sent] = []
    for budget in budgets:
        named = {"budget": budget} if budget else {}
        jobs.append(child(jobs[-1], **named) if jobs else job(**named, **root))
        ledger.accept(jobs[-1])
    return jobs


def state(ledger: MemoryLedger, opened: Sent) -> JobState:
    found = ledger.working_state.heads["job", stream_of(opened)].state
    assert isinstance(found, JobState)
    return found


def ids(jobs: Sequence[Sent]) -> list[str]:
    return [each["id"] for each in jobs]


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
@pytest.mark.parametrize("build", [child, lambda parent: recorded(parent_job_id=parent["id"])])
def test_a_parent_that_has_ended_takes_only_recorded_jobs(status: str, build: Any) -> None:
    ledger = MemoryLedger()
    parent = stream_in(ledger, "job", status)
    below = build(parent)

    verdict = ledger.send(below)

    if below["type"] == "job.recorded":
        assert isinstance(verdict, Receipt)
    else:
        assert isinstance(verdict, IllegalTransition)
        assert (verdict.status, verdict.allowed_from) == (status, ["pending", "running"])


@pytest.mark.parametrize("build", [child, lambda parent: recorded(parent_job_id=parent["id"])])
@pytest.mark.parametrize("status", [None, "deleted"])
def test_a_parent_must_exist(status: str | None, build: Any) -> None:
    ledger = MemoryLedger()

    refusal = ledger.refuse(build(stream_in(ledger, "job", status)))

    assert isinstance(refusal, UnknownReference)
    assert refusal.field == "parent_job_id"


def test_a_job_cannot_be_its_own_parent() -> None:
    queued = job()
    queued["data"]["parent_job_id"] = queued["id"]

    assert isinstance(MemoryLedger().refuse(queued), UnknownReference)


def test_a_child_inherits_the_campaign_and_currency_of_its_parent() -> None:
    ledger, owner = MemoryLedger(), campaign(currency="EUR")
    ledger.accept(owner)
    *_, lowest = line(ledger, None, None, None, campaign_id=owner["id"])

    ledger.accept(cost("2", agent_job_id=lowest["id"]))

    assert ledger.last.campaign_id == UUID(owner["id"])
    assert state(ledger, lowest).currency == "EUR"
    assert ledger.balances(owner) == (2, 0)


def test_a_child_names_no_other_campaign_than_that_of_its_parent() -> None:
    ledger, owner, other = MemoryLedger(), campaign(), campaign()
    ledger.accept(owner, other)
    (with_campaign,), (without,) = line(ledger, None, campaign_id=owner["id"]), line(ledger, None)

    ledger.accept(child(with_campaign, campaign_id=owner["id"]))

    assert isinstance(ledger.refuse(child(with_campaign, campaign_id=other["id"])), ReferenceMismatch)
    refusal = ledger.refuse(child(without, campaign_id=owner["id"]))
    assert isinstance(refusal, ReferenceMismatch)
    assert "the parent job belongs to no campaign" in refusal.detail


def test_a_child_has_no_campaign_if_that_of_its_parent_was_deleted() -> None:
    ledger, owner = MemoryLedger(), campaign(currency="EUR")
    ledger.accept(owner)
    (parent,) = line(ledger, None, campaign_id=owner["id"])
    ledger.accept(later(owner, "deleted"))
    below = child(parent)

    ledger.accept(below)

    assert (ledger.last.campaign_id, state(ledger, below).currency) == (None, "EUR")


def test_a_tree_has_one_currency() -> None:
    ledger = MemoryLedger()
    (parent,) = line(ledger, None, currency="EUR")

    ledger.accept(child(parent), child(parent, currency="EUR"))

    assert isinstance(ledger.refuse(child(parent, currency="USD")), CurrencyMismatch)
    ledger.accept(later(parent, "cancelled"))
    assert isinstance(ledger.refuse(child(parent, currency="USD")), CurrencyMismatch)


@pytest.mark.parametrize("status", ["completed", "archived"])
def test_an_inherited_campaign_that_has_ended_takes_only_recorded_jobs(status: str) -> None:
    ledger = MemoryLedger()
    owner = stream_in(ledger, "campaign", "active")
    (parent,) = line(ledger, None, campaign_id=owner["id"])
    ledger.accept(later(owner, status))

    refusal = ledger.refuse(child(parent))
    ledger.accept(recorded(parent_job_id=parent["id"]), recorded(campaign_id=owner["id"]))

    assert isinstance(refusal, IllegalTransition)
    assert refusal.status == status


def test_a_tree_has_at_most_15_levels_below_its_root() -> None:
    ledger = MemoryLedger()
    jobs = line(ledger, *[None] * (LEVELS_MAX + 1))

    refusal = ledger.refuse(child(jobs[-1]))
    ledger.accept(child(jobs[-2]), cost(agent_job_id=jobs[-1]["id"]))

    assert isinstance(refusal, InvalidEvent)
    assert refusal.errors[0]["path"] == "$.data.parent_job_id"
    assert {ledger.balances(each) for each in jobs} == {(1, 0)}


def test_money_counts_for_all_ancestors_through_every_event_of_an_entry() -> None:
    ledger, owner = MemoryLedger(), campaign()
    ledger.accept(owner)
    root, middle, lowest = line(ledger, None, None, None, campaign_id=owner["id"])
    held, overdue = reserve("3", agent_job_id=lowest["id"]), reserve("5", agent_job_id=lowest["id"])

    def balances() -> set[tuple[Decimal, Decimal]]:
        return {ledger.balances(each) for each in (root, middle, lowest, owner)}

    ledger.accept(held, overdue)
    assert balances() == {(0, 8)}
    ledger.accept(later(held, "settled", cost="2"), later(held, "adjusted", amount="0.5"))
    assert balances() == {(Decimal("2.5"), 5)}
    ledger.pass_seconds(900)
    assert isinstance(ledger.expire(overdue), Receipt)
    assert balances() == {(Decimal("2.5"), 0)}
    ledger.accept(cost("1", agent_job_id=middle["id"]))
    assert [ledger.balances(each)[0] for each in (root, middle, lowest)] == [Decimal("3.5"), Decimal("3.5"), 2.5]


def test_a_hold_must_fit_the_limit_of_every_ancestor() -> None:
    ledger = MemoryLedger()
    root, middle, lowest = line(ledger, "10", "4", "9")
    sibling = child(root)
    ledger.accept(sibling, reserve("4", agent_job_id=lowest["id"]), cost("6", agent_job_id=sibling["id"]))

    refusal = ledger.refuse(reserve("6", agent_job_id=lowest["id"]))

    assert isinstance(refusal, BudgetExceeded)
    assert [(scope["scope"], scope["id"]) for scope in refusal.scopes] == [
        ("job", lowest["id"]),
        ("ancestor", middle["id"]),
        ("ancestor", root["id"]),
    ]
    assert refusal.scopes[2] == {
        **{"scope": "ancestor", "id": root["id"], "limit": "10", "spent": "6", "held": "4"},
        **{"requested": "6", "available": "0"},
    }


def test_a_refusal_by_an_ancestor_names_it() -> None:
    ledger = MemoryLedger()
    _, lowest = line(ledger, "1", None)

    refusal = ledger.refuse(reserve("2", agent_job_id=lowest["id"]))

    assert refusal.detail == "requested 2 USD, but only 1 of the ancestor job's budget of 1 is available"


def test_a_fact_names_each_kind_of_exceeded_limit_once() -> None:
    ledger, owner = MemoryLedger(), campaign("1")
    ledger.accept(owner)
    *_, lowest = line(ledger, "1", "1", "1", campaign_id=owner["id"])

    receipt = ledger.accept(cost("2", agent_job_id=lowest["id"]))

    assert receipt.over_budget == ["job", "ancestor", "campaign"]


def test_only_the_ancestor_is_over_if_only_its_limit_is_exceeded() -> None:
    ledger = MemoryLedger()
    _, lowest = line(ledger, "1", None)

    assert ledger.accept(cost("2", agent_job_id=lowest["id"])).over_budget == ["ancestor"]


def test_the_end_of_a_parent_ends_no_child_and_releases_only_its_own_holds() -> None:
    ledger = MemoryLedger()
    parent, below = line(ledger, None, None)
    own, of_child = reserve(agent_job_id=parent["id"]), reserve(agent_job_id=below["id"])
    ledger.accept(own, of_child)

    ledger.accept(later(parent, "cancelled"))

    assert [ledger.status(each) for each in (own, of_child, below)] == ["released", "held", "pending"]
    ledger.accept(reserve(agent_job_id=below["id"]))
    assert ledger.balances(parent) == (0, 2)


def test_a_job_can_be_deleted_once_all_its_children_are() -> None:
    ledger = MemoryLedger()
    (parent,) = line(ledger, None)
    children = [child(parent), child(parent)]
    ledger.accept(*children, *(later(each, "cancelled") for each in [*children, parent]))

    refusal = ledger.refuse(later(parent, "deleted"))
    ledger.accept(later(children[0], "deleted"))
    second = ledger.refuse(later(parent, "deleted"))
    ledger.accept(later(children[1], "deleted"), later(parent, "deleted"))

    assert isinstance(refusal, IllegalTransition)
    assert "2 of its child jobs are not deleted" in refusal.detail
    assert "1 of its child jobs" in second.detail
    assert state(ledger, parent).children == 0


def test_a_job_above_one_with_costs_cannot_be_deleted() -> None:
    ledger = MemoryLedger()
    parent, below = line(ledger, None, None)
    ledger.accept(cost("0", agent_job_id=below["id"]), later(parent, "cancelled"), later(below, "cancelled"))

    assert "cost entries" in ledger.refuse(later(below, "deleted")).detail
    assert "child jobs" in ledger.refuse(later(parent, "deleted")).detail


def test_a_refused_batch_leaves_the_number_of_children() -> None:
    ledger = MemoryLedger()
    (parent,) = line(ledger, None)
    before = ledger.snapshot()

    ledger.batch(child(parent), child(parent), cost(agent_job_id=unknown()))

    assert ledger.snapshot() == before


@pytest.mark.parametrize("build", [child, lambda parent, **data: recorded(parent_job_id=parent["id"], **data)])
def test_a_retry_that_names_what_was_inherited_is_a_duplicate(build: Any) -> None:
    ledger, owner = MemoryLedger(), campaign(currency="EUR")
    ledger.accept(owner)
    (parent,) = line(ledger, None, campaign_id=owner["id"])
    below = build(parent)
    ledger.accept(below)

    again = ledger.accept({**below, "data": {**below["data"], "campaign_id": owner["id"]}})
    with_currency = ledger.accept({**below, "data": {**below["data"], "currency": "EUR"}})
    other = ledger.refuse({**below, "data": {**below["data"], "currency": "USD"}})

    assert again.duplicate
    assert with_currency.duplicate
    assert other.slug == "event-id-conflict"


@pytest.mark.parametrize("restricted_to", ["own", "other"])
def test_a_restricted_key_queues_jobs_only_under_jobs_of_its_campaigns(restricted_to: str) -> None:
    ledger, owner, other = MemoryLedger(), campaign(), campaign()
    ledger.accept(owner, other)
    (parent,) = line(ledger, None, campaign_id=owner["id"])
    campaigns = {"own": owner, "other": other}
    below = candidate(child(parent))
    allowed = frozenset({stream_of(campaigns[restricted_to])})

    (verdict,) = judge(ledger.working_state, Request([msgspec.structs.replace(below, allowed_campaign_ids=allowed)]))

    if restricted_to == "own":
        assert isinstance(verdict, Receipt)
    else:
        assert isinstance(verdict, UnknownReference)
        assert verdict.field == "parent_job_id"


def test_a_restricted_key_does_not_see_a_job_whose_inherited_campaign_is_another() -> None:
    ledger, owner = MemoryLedger(), campaign()
    ledger.accept(owner)
    *_, below = line(ledger, None, None, campaign_id=owner["id"])
    started = msgspec.structs.replace(
        candidate(later(below, "started")), allowed_campaign_ids=frozenset({UUID(unknown())})
    )

    (verdict,) = judge(ledger.working_state, Request([started]))

    assert isinstance(verdict, StreamNotFound)


@pytest.mark.parametrize("has_account", [True, False])
def test_a_changed_budget_is_the_limit_for_later_holds(has_account: bool) -> None:
    ledger = MemoryLedger()
    parent, below = line(ledger, "1", None)
    if has_account:
        ledger.accept(reserve("1", agent_job_id=below["id"]))

    ledger.accept(later(parent, "budget_changed", budget="3"), reserve("2", agent_job_id=below["id"]))
    assert isinstance(ledger.refuse(reserve("2", agent_job_id=below["id"])), BudgetExceeded)
    ledger.accept(later(parent, "budget_changed", reason="unchanged"))
    assert state(ledger, parent).budget == 3
    ledger.accept(later(parent, "budget_changed", budget=None), reserve("1000", agent_job_id=below["id"]))

    assert ledger.account(parent).limit is None


@pytest.mark.parametrize("opened", [campaign("1"), job(budget="1")])
def test_a_budget_of_null_is_written_and_an_absent_one_is_not(opened: Sent) -> None:
    ledger = MemoryLedger()
    ledger.accept(opened)

    ledger.accept(later(opened, "budget_changed"))
    absent = ledger.last.data
    ledger.accept(later(opened, "budget_changed", budget=None))

    assert (absent, ledger.last.data) == ("{}", '{"budget":null}')


@pytest.mark.parametrize("opened", [campaign("1"), job(budget="1")])
def test_a_budget_that_is_sent_again_as_null_is_a_conflict(opened: Sent) -> None:
    ledger = MemoryLedger()
    ledger.accept(opened)
    absent = later(opened, "budget_changed")
    ledger.accept(absent)

    assert ledger.accept(absent).duplicate
    assert ledger.refuse({**absent, "data": {"budget": None}}).slug == "event-id-conflict"


def test_a_recorded_job_has_ended_and_takes_costs_but_no_holds() -> None:
    ledger, opened = MemoryLedger(), recorded(budget="1")
    ledger.accept(opened)

    receipt = ledger.accept(cost("2", agent_job_id=opened["id"]))

    assert ledger.status(opened) == "completed"
    assert receipt.over_budget == ["job"]
    assert isinstance(ledger.refuse(reserve(agent_job_id=opened["id"])), IllegalTransition)


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"status": "failed"}, "$.data.error_message"),
        ({"status": "failed", "error_message": "it broke"}, None),
        ({"status": "cancelled"}, None),
    ],
)
def test_a_recorded_job_that_failed_says_why(data: Sent, path: str | None) -> None:
    verdict = MemoryLedger().send(recorded(**data))

    assert [error["path"] for error in verdict.errors] == [path] if isinstance(verdict, InvalidEvent) else path is None


def test_states_of_earlier_releases_have_no_ancestors() -> None:
    written = b'["pending",null,"USD","5",0,null]'

    found = msgspec.json.decode(written, type=JobState)

    assert (found.ancestors, found.children) == ((), 0)
