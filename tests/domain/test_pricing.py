"""The cost of a call by usage and price: equal to a naive model in fractions, and never silently free."""

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.codec import dump
from ledger.domain.event_type import decoder_of
from ledger.domain.price import PricePublished, Rates, Source, Tier
from ledger.domain.pricing import PriceTable
from ledger.domain.usage import COUNTERS, Usage

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def cost_of(price: PricePublished, usage: Usage) -> Decimal | None:
    return PriceTable(price).cost_of(usage)


def price(rates: dict[str, str], **fields: Any) -> PricePublished:
    amounts = {name: Decimal(rate) for name, rate in rates.items()}
    source = Source(name="test", version="1")
    return PricePublished(
        provider="openai", model="gpt", rates=Rates(**amounts), effective_from=NOON, source=source, **fields
    )


def tier(above: int, **rates: str) -> Tier:
    amounts = {name: Decimal(rate) for name, rate in rates.items()}
    return Tier(above_input_tokens=above, rates=Rates(**amounts))


def test_cached_tokens_and_reasoning_have_their_own_rates() -> None:
    rates = {"input_tokens": "2", "output_tokens": "8", "cache_read_tokens": "0.5", "reasoning_tokens": "6"}
    usage = Usage(input_tokens=1000, cache_read_tokens=600, output_tokens=100, reasoning_tokens=40)

    assert cost_of(price(rates), usage) == Decimal("0.00182")  # (400 * 2 + 600 * 0.5 + 60 * 8 + 40 * 6) / 10^6


def test_a_counter_without_a_rate_is_charged_like_the_one_that_includes_it() -> None:
    usage = Usage(
        input_tokens=100, cache_read_tokens=30, cache_write_tokens=20, cache_write_1h_tokens=10, input_audio_tokens=5
    )

    assert cost_of(price({"input_tokens": "1"}, per=1), usage) == 100
    assert cost_of(price({"input_tokens": "1", "cache_write_tokens": "3"}, per=1), usage) == 80 + 20 * 3


def test_tokens_that_may_be_in_two_counters_with_own_rates_have_no_price() -> None:
    rates = {"input_tokens": "1", "cache_read_tokens": "0.1", "input_audio_tokens": "10"}
    cached_audio = Usage(input_tokens=10, cache_read_tokens=4, input_audio_tokens=5)
    written_audio = Usage(input_tokens=10, cache_write_tokens=8, input_audio_tokens=9)

    assert cost_of(price(rates, per=1), cached_audio) is None
    assert PriceTable(price(rates)).ambiguous(cached_audio) == ("input_audio_tokens",)
    assert PriceTable(price(rates)).without_rate(cached_audio) == ()
    # Writing to the cache has no rate of its own, so it does not matter which tokens are both.
    assert cost_of(price(rates, per=1), written_audio) == 1 + 9 * 10


def test_a_usage_is_that_of_one_request_unless_it_says_otherwise() -> None:
    per_request = price({"input_tokens": "1", "requests": "3"}, per=1)

    assert [cost_of(per_request, Usage(input_tokens=5, requests=count)) for count in (None, 0, 2)] == [8, 5, 11]


def test_a_tier_prices_the_whole_call_once_its_threshold_is_exceeded() -> None:
    tiers = [tier(100, input_tokens="2"), tier(200, input_tokens="3")]
    tiered = price({"input_tokens": "1", "output_tokens": "5"}, tiers=tiers, per=1)

    costs = [cost_of(tiered, Usage(input_tokens=tokens, output_tokens=1)) for tokens in (100, 101, 200, 201)]

    assert costs == [105, 207, 405, 608]


def test_units_without_a_rate_are_never_free() -> None:
    of_tokens = price({"input_tokens": "1"})

    assert cost_of(of_tokens, Usage(input_tokens=5, images=1)) is None
    assert PriceTable(of_tokens).without_rate(Usage(input_tokens=5, images=1, searches=2)) == ("images", "searches")
    assert cost_of(price({"output_tokens": "1"}), Usage(input_tokens=5)) is None
    assert cost_of(price({"input_tokens": "1", "images": "0"}, per=1), Usage(input_tokens=5, images=1)) == 5


def test_requests_need_a_rate_only_if_nothing_else_is_charged() -> None:
    of_tokens = price({"input_tokens": "1"}, per=1)

    assert cost_of(of_tokens, Usage(input_tokens=5, requests=1)) == 5
    assert cost_of(of_tokens, Usage(requests=1)) is None
    assert cost_of(price({"input_tokens": "1", "requests": "3"}, per=1), Usage(input_tokens=5, requests=2)) == 11


def test_a_cost_is_rounded_once_half_even() -> None:
    halves = price({"input_tokens": "0.5", "output_tokens": "0.5"}, per=10**12)
    tiny = price({"input_tokens": "0.0000005"}, per=10**12)

    assert cost_of(halves, Usage(input_tokens=1, output_tokens=2)) == Decimal("1.5e-12")
    assert cost_of(tiny, Usage(input_tokens=1)) == 0  # 0.5e-18
    assert cost_of(tiny, Usage(input_tokens=3)) == Decimal("2e-18")  # 1.5e-18


def test_a_call_without_usage_costs_nothing() -> None:
    assert cost_of(price({"input_tokens": "1"}), Usage(input_tokens=0)) == 0


counts = st.integers(0, 10**6)
amounts = st.decimals(0, 10**4, places=10)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    fresh, read, write, answer, reasoning = (draw(counts) for _ in range(5))
    inputs, outputs = fresh + read + write, answer + reasoning
    return Usage(
        input_tokens=inputs,
        output_tokens=outputs,
        cache_read_tokens=read,
        cache_write_tokens=write,
        cache_write_1h_tokens=draw(st.integers(0, write)),
        reasoning_tokens=reasoning,
        input_audio_tokens=draw(st.integers(0, inputs)),
        output_audio_tokens=draw(st.integers(0, outputs)),
        images=draw(st.integers(0, 5)),
        requests=draw(st.sampled_from((None, 0, 1))),
    )


@st.composite
def prices(draw: st.DrawFn) -> PricePublished:
    def rates() -> dict[str, str]:
        names = draw(st.sets(st.sampled_from(COUNTERS), min_size=1))
        return {name: str(draw(amounts)) for name in names}

    above = sorted(draw(st.sets(counts, max_size=3)))
    per = 10 ** draw(st.integers(0, 12))
    return price(rates(), tiers=[tier(threshold, **rates()) for threshold in above] or None, per=per)


def naive_cost(price: PricePublished, usage: Usage) -> Fraction | None:
    """Charge each token on its own rules, as they are written in the reference."""
    named = price.rates.as_json()
    for each in price.tiers or ():
        if (usage.input_tokens or 0) > each.above_input_tokens:
            named = price.rates.as_json() | each.rates.as_json()
    rate: dict[str, Any] = {name: Fraction(amount) for name, amount in named.items()}
    used = {name: getattr(usage, name) or 0 for name in COUNTERS}
    like = {"cache_write_1h_tokens": ("cache_write_tokens", "input_tokens")}
    like |= dict.fromkeys(("cache_read_tokens", "cache_write_tokens", "input_audio_tokens"), ("input_tokens",))
    like |= dict.fromkeys(("reasoning_tokens", "output_audio_tokens"), ("output_tokens",))
    rate = {name: next((rate[each] for each in (name, *like.get(name, ())) if each in rate), None) for name in COUNTERS}
    used["cache_write_tokens"] -= used["cache_write_1h_tokens"]
    for audio, whole in (("input_audio_tokens", "input_tokens"), ("output_audio_tokens", "output_tokens")):
        parts = [name for name in like if whole in like[name] and used[name]]
        if audio in parts:
            for name in [name for name in parts if rate[name] == rate[whole]]:
                used[name] = 0
                parts.remove(name)
        if audio in parts and len(parts) > 1:
            return None
        used[whole] -= sum(used[name] for name in parts)
    if usage.requests is None and rate["requests"] is not None:
        used["requests"] = 1
    total, charged, free = Fraction(0), 0, []
    for name, count in used.items():
        if count and rate[name] is None:
            free.append(name)
        elif count:
            charged += 1
            total += count * rate[name]
    if free and not (free == ["requests"] and charged):
        return None
    return total / (price.per or 1)


@given(prices(), usages())
def test_a_cost_equals_that_of_a_naive_model(published: PricePublished, usage: Usage) -> None:
    expected = naive_cost(published, usage)
    if expected is not None and expected >= 10**10:
        with pytest.raises(ValueError, match="10 digits"):
            cost_of(published, usage)
        return

    cost = cost_of(published, usage)

    if expected is None:
        assert cost is None
    else:
        # `round` of a fraction is half-even too.
        assert cost is not None
        assert Fraction(cost) * 10**18 == round(expected * 10**18)


@given(prices())
def test_a_price_is_stored_in_a_form_that_reads_as_the_same_price(published: PricePublished) -> None:
    data, text = dump(published)

    again = decoder_of(PricePublished).decode(data)

    assert text is None
    assert again == published
    assert dump(again)[0] == data


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ({"per": 20}, "power of 10"),
        ({"rates": {}}, "at least one rate"),
        ({"rates": {"input_tokens": "-1"}}, "at least 0"),
        ({"rates": {"tokens": "1"}}, "unknown field"),
        ({"tiers": [{"above_input_tokens": 5, "rates": {"images": "1"}}] * 2}, "must rise"),
        ({"names": ["m"] * 101}, "length"),
        ({"prefixes": ["m"] * 21}, "length"),
    ],
)
def test_an_invalid_price_is_refused(field: dict[str, Any], wrong: str) -> None:
    sent = msgspec.json.decode(dump(price({"input_tokens": "1"}))[0]) | field

    with pytest.raises(msgspec.ValidationError, match=wrong):
        decoder_of(PricePublished).decode(msgspec.json.encode(sent))
