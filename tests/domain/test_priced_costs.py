"""Costs by usage: priced when judged, unpriced without a price, and never priced a second time."""

import tracemalloc
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from ledger.domain import price_book
from ledger.domain.budget_entry import Entry
from ledger.domain.codec import dump, time_text
from ledger.domain.cost import CostPriced
from ledger.domain.errors import BudgetExceeded, IllegalTransition, InvalidEvent
from ledger.domain.event import Receipt, Request
from ledger.domain.judge import judge
from ledger.domain.log_history import InvalidLogError, LogHistory
from ledger.domain.price_book import PriceBook, PriceKey
from ledger.domain.price_check import PricedCalls
from ledger.domain.price_errors import Unpriced
from ledger.domain.priced_cost import require_fillable
from ledger.domain.rejudge import rejudge, to_candidate
from ledger.domain.service_events import SERVICE
from ledger.domain.working_state import WorkingState
from ledger.log.prepare import prepare
from tests.domain.helpers import CATALOGUE, NOW, MemoryLedger, Sent, later, shape_error, stream_of
from tests.events import campaign, event, job

USAGE = {"input_tokens": 1000, "output_tokens": 100}


def published(input_rate: str = "2", *, model: str = "gpt-4o", hours: int = -1, **data: Any) -> Sent:
    return event(
        "price.published",
        {
            "provider": "openai",
            "model": model,
            "rates": {"input_tokens": input_rate, "output_tokens": "8"},
            "effective_from": time_text(NOW + timedelta(hours=hours)),
            "source": {"name": "test", "version": "1"},
            **data,
        },
    )


def used(type_: str = "cost.recorded", **data: Any) -> Sent:
    call = {"provider": "openai", "model_used": "gpt-4o", "usage": USAGE}
    return event(type_, {"resource_type": "llm_api", **call, **data})


def stored(ledger: MemoryLedger) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(ledger.last.data)
    return decoded


def reprice(ledger: MemoryLedger, sent: Sent, cost: str, price: int) -> Any:
    kind = CATALOGUE["cost.priced"]
    payload = CostPriced(cost=Decimal(cost), price=price)
    return judge(ledger.working_state, Request([prepare(kind, payload, actor=SERVICE, stream_id=stream_of(sent))]))[0]


def test_a_fact_with_usage_gets_its_cost_and_the_position_of_its_price() -> None:
    ledger = MemoryLedger()
    price = ledger.accept(published())
    owner = campaign()
    ledger.accept(owner, used(campaign_id=owner["id"]))

    assert (stored(ledger)["cost"], stored(ledger)["price"]) == ("0.0028", price.position)
    assert ledger.balances(owner) == (Decimal("0.0028"), 0)


def test_the_stored_data_is_as_if_it_had_been_written_at_once() -> None:
    ledger = MemoryLedger()
    ledger.accept(published(), hold := used("cost.reserved", description="a text", labels={"a": "b"}))
    of_hold = ledger.last
    ledger.accept(later(hold, "settled", cost=None, usage=USAGE, response_id="r"))
    of_settlement = ledger.last
    ledger.accept(used(description='"'))

    for recorded in (of_hold, of_settlement, ledger.last):
        candidate = to_candidate(recorded)
        assert dump(candidate.payload)[0].decode() == recorded.data
        assert getattr(candidate.payload, "price", None) == 1


def test_a_retry_after_a_new_price_is_a_duplicate_with_the_old_cost() -> None:
    ledger = MemoryLedger()
    sent, hold = used(), used("cost.reserved")
    settled = later(hold, "settled", cost=None, usage=USAGE)
    first = [ledger.accept(published()), ledger.accept(sent), ledger.accept(hold), ledger.accept(settled)]
    ledger.accept(published("4"))

    again = [ledger.accept(each) for each in (sent, hold, settled)]

    assert [receipt.duplicate for receipt in again] == [True] * 3
    assert [receipt.position for receipt in again] == [receipt.position for receipt in first[1:]]


def test_a_settlement_inherits_provider_model_and_tier() -> None:
    ledger = MemoryLedger()
    ledger.accept(published(), published("1", service_tier="batch"))
    hold = used("cost.reserved", service_tier="batch")

    ledger.accept(hold, later(hold, "settled", cost=None, usage=USAGE))
    assert (stored(ledger)["cost"], stored(ledger)["price"]) == ("0.0018", 2)


def test_a_cost_that_was_sent_wins() -> None:
    ledger = MemoryLedger()
    ledger.accept(published(), used(cost="5"))

    assert stored(ledger)["cost"] == "5"
    assert "price" not in stored(ledger)


def test_a_cost_is_priced_for_the_time_at_which_it_occurred() -> None:
    ledger = MemoryLedger()
    ledger.accept(published("1", hours=-4), published("2", hours=-2))

    ledger.accept({**used(), "occurred_at": time_text(NOW - timedelta(hours=3))})
    assert stored(ledger)["price"] == 1


def test_the_currency_is_that_of_the_entry() -> None:
    ledger = MemoryLedger()
    owner = campaign(currency="EUR")
    ledger.accept(published(), owner, used(campaign_id=owner["id"]))
    assert "price" not in stored(ledger)

    ledger.accept(published("3", currency="EUR"), used(campaign_id=owner["id"]))
    assert stored(ledger)["price"] == 4


def test_a_hold_without_a_price_is_refused_and_says_for_what() -> None:
    ledger = MemoryLedger()

    refusal = ledger.refuse(used("cost.reserved", service_tier="batch"))

    assert isinstance(refusal, Unpriced)
    assert refusal.members == {
        "provider": "openai",
        "model_used": "gpt-4o",
        "service_tier": "batch",
        "currency": "USD",
    }
    assert isinstance(ledger.refuse(used("cost.reserved", provider=None)), Unpriced)
    ledger.accept(published())
    assert "no rate for images" in ledger.refuse(used("cost.reserved", usage={"images": 1})).detail


def test_a_computed_hold_may_be_zero() -> None:
    ledger = MemoryLedger()

    ledger.accept(published("0"), used("cost.reserved", usage={"input_tokens": 1000}))

    assert stored(ledger)["amount"] == "0"


def test_a_computed_hold_that_exceeds_the_budget_is_recorded_as_denied_with_its_amount() -> None:
    ledger = MemoryLedger()
    owner = campaign("0.001")
    ledger.accept(published(), owner)

    refusal = ledger.refuse(used("cost.reserved", campaign_id=owner["id"]))

    assert isinstance(refusal, BudgetExceeded)
    (denial,) = ledger.working_state.denials.values()
    denied = msgspec.json.decode(denial.candidate.data)
    assert (denied["amount"], denied["price"]) == ("0.0028", 1)


def test_an_unpriced_fact_gets_its_cost_once_and_is_adjusted_only_after() -> None:
    ledger = MemoryLedger()
    working = job()
    sent = used(agent_job_id=working["id"])
    ledger.accept(working, sent)
    assert stored(ledger) | {"usage": USAGE} == stored(ledger)
    assert ledger.working_state.entries[stream_of(sent)].unpriced
    assert isinstance(ledger.refuse(later(sent, "adjusted", amount="1")), IllegalTransition)

    price = ledger.accept(published())
    priced = reprice(ledger, sent, "0.0028", price.position)

    assert isinstance(priced, Receipt)
    assert ledger.balances(working) == (Decimal("0.0028"), 0)
    assert isinstance(reprice(ledger, sent, "0.0028", price.position), IllegalTransition)
    assert ledger.accept(sent).duplicate
    ledger.accept(later(sent, "adjusted", amount="1"))


def test_a_cost_that_arrives_by_pricing_is_a_fact_past_the_budget() -> None:
    ledger = MemoryLedger()
    owner = campaign("0.001")
    sent = used(campaign_id=owner["id"])
    ledger.accept(owner, sent)

    priced = reprice(ledger, sent, "0.0028", ledger.accept(published()).position)

    assert priced.over_budget == ["campaign"]


def test_prices_and_costs_of_one_batch_see_each_other_and_are_rolled_back_together() -> None:
    ledger = MemoryLedger()
    before = ledger.snapshot()

    (refusal,) = ledger.batch(published(), used(), later(used(), "settled"))
    assert isinstance(refusal, IllegalTransition)
    assert ledger.snapshot() == before

    ledger.batch(published("1"), used(), published("2"), used())
    costs = [msgspec.json.decode(ledger.working_state.events[index].data)["cost"] for index in (1, 3)]
    assert costs == ["0.0018", "0.0028"]


def test_a_price_is_withdrawn_once_and_may_be_published_again() -> None:
    ledger = MemoryLedger()
    price = published()
    receipt = ledger.accept(price)
    withdrawn = event(
        "price.withdrawn",
        {"effective_from": time_text(NOW), "reason": "gone"},
        stream_id=str(receipt.stream_id),
    )

    ledger.accept(withdrawn)
    assert isinstance(ledger.refuse(used("cost.reserved")), Unpriced)
    assert isinstance(ledger.refuse({**withdrawn, "id": job()["id"]}), IllegalTransition)
    assert isinstance(
        ledger.refuse(event("price.withdrawn", withdrawn["data"], stream_id=job()["id"])), IllegalTransition
    )
    assert ledger.accept(published(hours=0)).version == 3
    ledger.accept(used("cost.reserved"))


def test_a_withdrawal_ends_one_price_and_later_ones_can_be_withdrawn_after_it() -> None:
    ledger = MemoryLedger()
    stream_id = str(ledger.accept(published(hours=-4), published(hours=4)).stream_id)

    def withdrawn(hours: int) -> Sent:
        return event(
            "price.withdrawn", {"effective_from": time_text(NOW + timedelta(hours=hours))}, stream_id=stream_id
        )

    def is_priced(hours: int) -> bool:
        ledger.accept({**used(), "occurred_at": time_text(NOW + timedelta(hours=hours))})
        return "price" in stored(ledger)

    ledger.accept(withdrawn(0))
    assert [is_priced(hours) for hours in (-1, 0, 3, 4)] == [True, False, False, True]
    refused = [ledger.refuse(withdrawn(hours)) for hours in (-5, 0, 3)]
    assert [(type(each), getattr(each, "status", "")) for each in refused] == [
        (IllegalTransition, None),
        *[(IllegalTransition, "withdrawn")] * 2,
    ]

    ledger.accept(withdrawn(5), withdrawn(4), withdrawn(-2))
    assert [is_priced(hours) for hours in (-3, -2, 0, 4, 5)] == [True, False, False, False, False]
    ledger.accept(published(hours=0))
    assert is_priced(0)


@pytest.mark.parametrize("type_", ["cost.recorded", "cost.reserved"])
def test_a_usage_without_counters_does_not_replace_an_amount(type_: str) -> None:
    sent = used(type_, usage={})

    assert "names no counter" in shape_error(type_, sent["data"])
    assert "names no counter" in shape_error("cost.settled", {"usage": {}})
    MemoryLedger().accept(used(cost="5", usage={}))


@pytest.mark.parametrize("usage", [{"requests": 0}, {"input_tokens": 0, "output_tokens": 0}])
def test_a_hold_of_no_units_is_refused_and_a_fact_of_none_costs_nothing(usage: dict[str, int]) -> None:
    ledger = MemoryLedger()
    ledger.accept(published(), used(usage=usage))

    assert stored(ledger)["cost"] == "0"
    assert "must have a counter of more than 0" in shape_error("cost.reserved", used(usage=usage)["data"])


def test_a_hold_without_a_price_is_refused_for_its_campaign_or_job_first() -> None:
    ledger, owner, work = MemoryLedger(), campaign(), job()
    ledger.accept(owner, later(owner, "activated"), later(owner, "completed"), work, later(work, "cancelled"))

    assert isinstance(ledger.refuse(used("cost.reserved", campaign_id=owner["id"])), IllegalTransition)
    assert isinstance(ledger.refuse(used("cost.reserved", agent_job_id=work["id"])), IllegalTransition)


def test_an_unknown_model_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, looked_up = MemoryLedger(), list[str]()
    find = PriceBook.find

    def count(book: PriceBook, key: PriceKey, at: datetime) -> Any:
        looked_up.append(key.model)
        return find(book, key, at)

    monkeypatch.setattr(PriceBook, "find", count)
    assert isinstance(ledger.refuse(used("cost.reserved", model_used="unknown")), Unpriced)
    assert looked_up == ["unknown"]


@pytest.mark.parametrize("fields", [("price", "cost"), ("resource_type", "description", "cost", "price")])
def test_only_data_that_begin_with_the_cost_and_end_with_the_price_are_filled_in(fields: tuple[str, ...]) -> None:
    with pytest.raises(AssertionError, match="cost"):
        require_fillable(fields, "cost")


@pytest.mark.parametrize("rate", ["4.9e-19", "1e-300"])
def test_a_rate_that_would_be_rounded_to_free_is_refused(rate: str) -> None:
    assert "input_tokens is too small for 18 decimals" in shape_error("price.published", published(rate)["data"])


def test_a_rate_of_zero_and_the_smallest_rate_are_kept() -> None:
    ledger = MemoryLedger()

    for rate, kept in (("0", "0"), ("0e-30", "0"), ("5.1e-19", "0.000000000000000001")):
        ledger.accept(published(rate))
        assert stored(ledger)["rates"]["input_tokens"] == kept


def test_a_full_price_book_takes_only_withdrawals_and_is_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = MemoryLedger()
    first = published(names=["a", "b"], prefixes=["c"])
    tiers = [{"above_input_tokens": 1, "rates": {"input_tokens": "1"}}]
    stream_id = str(ledger.accept(first, published(model="m", tiers=tiers)).stream_id)
    assert ledger.working_state.prices.weight == 6
    monkeypatch.setattr(price_book, "WEIGHT_MAX", 6)
    monkeypatch.setattr(price_book, "WITHDRAWALS_MAX", 1)
    before = ledger.snapshot()

    refusal = ledger.refuse(published())
    assert "the price book is full" in refusal.detail
    assert (ledger.accept(first).duplicate, ledger.snapshot()) == (True, before)
    ledger.accept(event("price.withdrawn", {"effective_from": time_text(NOW)}, stream_id=stream_id))
    later = event("price.withdrawn", {"effective_from": time_text(NOW - timedelta(minutes=1))}, stream_id=stream_id)
    assert "the price book is full" in ledger.refuse(later).detail

    monkeypatch.setattr(price_book, "WEIGHT_MAX", 0)
    replay(ledger.working_state.events)


def test_a_cost_too_large_for_an_amount_is_refused() -> None:
    ledger = MemoryLedger()
    ledger.accept(published("9999999999", per=1))

    assert isinstance(ledger.refuse(used()), InvalidEvent)


def log_of_prices() -> MemoryLedger:
    ledger = MemoryLedger()
    late = used(model_used="late")
    hold = used("cost.reserved")
    ledger.accept(published(), used(), hold, later(hold, "settled", cost=None, usage=USAGE), late)
    price = ledger.accept(published(model="late"))
    assert isinstance(reprice(ledger, late, "0.0028", price.position), Receipt)
    return ledger


def replay(events: list[Any]) -> None:
    working_state, history = WorkingState(0, NOW), LogHistory()
    for recorded in events:
        rejudge(working_state, history, recorded, to_candidate(recorded))


def log_with_denial() -> list[Any]:
    ledger = MemoryLedger()
    owner = campaign("0.001")
    ledger.accept(published(), owner)
    ledger.refuse(used("cost.reserved", campaign_id=owner["id"]))
    (denial,) = ledger.working_state.denials.values()
    ledger.working_state.record(denial.candidate, denial.campaign_id, denial.agent_job_id)
    return list(ledger.working_state.events)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('"amount":"0.0028"', '"amount":"0.0029"', "is 0.0029, but 0.0028 by the price of position 1"),
        ('"price":1', '"price":2', "no published price at position 2"),
        ('"model_used":"gpt-4o"', '"model_used":"gpt-4"', "is not one of gpt-4"),
    ],
)
def test_the_computed_amount_of_a_denial_is_checked(old: str, new: str, fault: str) -> None:
    *before, denied = log_with_denial()
    replay([*before, denied])
    assert (denied.type, old in denied.data) == ("cost.denied", True)

    with pytest.raises(InvalidLogError, match=fault):
        replay([*before, denied._replace(data=denied.data.replace(old, new))])


def test_a_call_is_remembered_in_few_bytes() -> None:
    calls, working_state, count = PricedCalls(), WorkingState(0, NOW), 2_000
    event = log_of_prices().working_state.events[1]
    entry = Entry("settled", 1, None, None, provider="openai", model_used="gpt-4o")
    working_state.entries |= {uuid4(): entry for _ in range(count)}

    tracemalloc.start()
    for number, stream_id in enumerate(working_state.entries):
        each = event._replace(stream_id=stream_id, occurred_at=NOW + timedelta(microseconds=number))
        calls.add(working_state, each, to_candidate(each).payload)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    # 600 if the decoded call was kept.
    assert kept / count < 400


def test_a_log_with_prices_can_be_judged_again() -> None:
    replay(log_of_prices().working_state.events)


@pytest.mark.parametrize(
    ("position", "old", "new", "fault"),
    [
        (2, '"cost":"0.0028"', '"cost":"0.0027"', "is 0.0027, but 0.0028 by the price of position 1"),
        (2, '"price":1', '"price":2', "no published price at position 2"),
        (2, '"input_tokens":1000', '"input_tokens":1001', "by the price of position 1"),
        (2, '"model_used":"gpt-4o"', '"model_used":"gpt-4"', "is not one of gpt-4"),
        (3, '"amount":"0.0028"', '"amount":"0.0029"', "is 0.0029"),
        (4, '"cost":"0.0028"', '"cost":"0.002"', "is 0.002, but"),
        (7, '"cost":"0.0028"', '"cost":"0.002"', "is 0.002, but"),
        (7, '"price":6', '"price":1', "is not one of late"),
        (1, '"input_tokens":"2"', '"input_tokens":"1"', "by the price of position 1"),
        (6, '"provider":"openai"', '"provider":"other"', "the stream of this price"),
    ],
)
def test_a_changed_price_or_cost_is_found(position: int, old: str, new: str, fault: str) -> None:
    events = list(log_of_prices().working_state.events)
    changed = events[position - 1]
    assert old in changed.data
    events[position - 1] = changed._replace(data=changed.data.replace(old, new))

    with pytest.raises(InvalidLogError, match=fault):
        replay(events)
