"""Rates of genai-prices in the counters of a usage: exact, or left out with the reason."""

from decimal import Decimal

import pytest
from genai_prices.types import ModelPrice, Tier, TieredPrices

from ledger.prices.genai_rates import InexpressibleError, exact_rates


def price(**rates: str) -> ModelPrice:
    return ModelPrice(**{name: Decimal(rate) for name, rate in rates.items()})


def test_rates_for_a_thousand_or_an_hour_become_rates_for_a_million() -> None:
    exact = exact_rates(price(input_mtok="2.5", web_searches_kcount="10", requests_kcount="0.005", audio_hours="0.36"))

    assert exact.rates.as_json() == {"input_tokens": "2.5", "seconds": "100", "searches": "10000", "requests": "5"}
    assert not exact.left_out


def test_every_tier_has_all_rates() -> None:
    tiered = TieredPrices(Decimal(1), [Tier(200, Decimal(3)), Tier(100, Decimal(2))])
    exact = exact_rates(ModelPrice(input_mtok=tiered, output_mtok=Decimal(9)))

    assert exact.rates.as_json() == {"input_tokens": "1", "output_tokens": "9"}
    assert exact.tiers is not None
    assert [tier.as_json() for tier in exact.tiers] == [
        {"above_input_tokens": 100, "rates": {"input_tokens": "2", "output_tokens": "9"}},
        {"above_input_tokens": 200, "rates": {"input_tokens": "3", "output_tokens": "9"}},
    ]


@pytest.mark.parametrize(
    ("key", "rate", "reason"),
    [
        ("audio_hours", "0.111", "finite decimal"),
        ("storage_searches_kcount", "2.5", "no counter"),
        ("cache_audio_read_mtok", "0.1", "both cached and audio"),
    ],
)
def test_a_rate_that_cannot_be_expressed_is_left_out_and_named(key: str, rate: str, reason: str) -> None:
    exact = exact_rates(price(input_mtok="1", **{key: rate}))

    assert exact.rates.as_json() == {"input_tokens": "1"}
    assert reason in exact.left_out[key]


@pytest.mark.parametrize("rates", [{"input_mtok": "1", "output_image_mtok": "40"}, {"audio_hours": "0.111"}, {}])
def test_a_price_is_refused_if_calls_would_be_charged_wrongly_without_a_rate(rates: dict[str, str]) -> None:
    with pytest.raises(InexpressibleError):
        exact_rates(price(**rates))
