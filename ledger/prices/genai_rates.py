"""Rates of genai-prices in the counters of a usage; those that cannot be expressed exactly are named."""

from collections.abc import Iterator
from decimal import Decimal, Inexact
from typing import NamedTuple

from genai_prices.types import ModelPrice, TieredPrices

from ledger.domain import money
from ledger.domain.errors import LedgerError
from ledger.domain.price import PER_DEFAULT, Rates, Tier

RATE_COUNTERS = {
    "input_mtok": ("input_tokens", 1_000_000),
    "output_mtok": ("output_tokens", 1_000_000),
    "cache_read_mtok": ("cache_read_tokens", 1_000_000),
    "cache_write_mtok": ("cache_write_tokens", 1_000_000),
    "cache_write_1h_mtok": ("cache_write_1h_tokens", 1_000_000),
    "input_audio_mtok": ("input_audio_tokens", 1_000_000),
    "output_audio_mtok": ("output_audio_tokens", 1_000_000),
    "output_reasoning_mtok": ("reasoning_tokens", 1_000_000),
    "input_mchars": ("characters", 1_000_000),
    "audio_hours": ("seconds", 3_600),
    "input_audio_hours": ("seconds", 3_600),
    "web_searches_kcount": ("searches", 1_000),
    "requests_kcount": ("requests", 1_000),
}
"""By the library's name of a price: the counter, and the number of its units that the price is for."""

OVERLAPS = {"cache_audio_read_mtok": "a call with both cached and audio tokens stays unpriced"}
"""Rates of tokens that are in two counters at once. Without such tokens the other rates are exact."""

TIERS_MAX = 10

Price = Decimal | TieredPrices


class InexpressibleError(LedgerError):
    """The price cannot be expressed exactly."""


class ExactRates(NamedTuple):
    """The rates of a price for `PER_DEFAULT` units. `left_out` says of each missing rate why it is missing."""

    rates: Rates
    tiers: list[Tier] | None
    left_out: dict[str, str]


def exact_rates(price: ModelPrice) -> ExactRates:
    """Convert a price of the library.

    Raises:
        InexpressibleError: Without a rate that was left out, calls would be charged wrongly.
    """
    by_counter: dict[str, Price] = {}
    left_out: dict[str, str] = {}
    for key, value in _priced(price):
        if reason := _reason(key, value, by_counter):
            left_out[key] = reason
        else:
            by_counter[RATE_COUNTERS[key][0]] = _for_default(value, RATE_COUNTERS[key][1])
    if not by_counter:
        raise InexpressibleError("no rate for any counter" if left_out else "no price")
    return ExactRates(_rates_above(by_counter, None), _tiers(by_counter), left_out)


def _priced(price: ModelPrice) -> Iterator[tuple[str, Price]]:
    for key, value in sorted(vars(price).items()):
        if value is not None:
            yield key, value


def _reason(key: str, value: Price, by_counter: dict[str, Price]) -> str | None:
    """Return why a rate is left out, None if it is not; raise if the price as a whole cannot be expressed."""
    if key in OVERLAPS:
        return OVERLAPS[key]
    if key not in RATE_COUNTERS:
        if key.endswith("_mtok"):
            # These tokens are part of input or output, so they would be charged at a wrong rate.
            raise InexpressibleError(f"no counter for the tokens of {key}")
        return "no counter for its units"
    counter, units = RATE_COUNTERS[key]
    try:
        exact = _for_default(value, units)
    except Inexact:
        return "not a finite decimal for one unit"
    return "two rates for one counter" if by_counter.get(counter, exact) != exact else None


def _for_default(value: Price, units: int) -> Price:
    """Convert a price for so many units to that for `PER_DEFAULT`; raise `Inexact` if it is not a finite decimal."""
    if isinstance(value, TieredPrices):
        tiers = [type(tier)(tier.start, _scaled(tier.price, units)) for tier in value.tiers]
        return TieredPrices(_scaled(value.base, units), tiers)
    return _scaled(value, units)


def _scaled(rate: Decimal, units: int) -> Decimal:
    return money.canonical(money.EXACT.divide(money.EXACT.multiply(rate, Decimal(PER_DEFAULT)), Decimal(units)))


def _tiers(by_counter: dict[str, Price]) -> list[Tier] | None:
    tiered = [price for price in by_counter.values() if isinstance(price, TieredPrices)]
    starts = sorted({tier.start for price in tiered for tier in price.tiers})
    if len(starts) > TIERS_MAX:
        raise InexpressibleError(f"more than {TIERS_MAX} tiers")
    return [Tier(above_input_tokens=start, rates=_rates_above(by_counter, start)) for start in starts] or None


def _rates_above(by_counter: dict[str, Price], start: int | None) -> Rates:
    """Return the rates of a call with more than `start` input tokens; None: those below all tiers."""
    return Rates(**{counter: _rate_above(price, start) for counter, price in by_counter.items()})


def _rate_above(price: Price, start: int | None) -> Decimal:
    if not isinstance(price, TieredPrices):
        return price
    reached = [tier.price for tier in price.tiers if start is not None and tier.start <= start]
    return reached[-1] if reached else price.base
