"""The cost of a call by its usage and a price: exact, rounded once, and never silently free."""

from decimal import Decimal

from ledger.domain import money
from ledger.domain.price import PER_DEFAULT, PricePublished, Rates
from ledger.domain.usage import COUNTERS, Usage

CHARGED_LIKE = {
    "cache_read_tokens": "input_tokens",
    "cache_write_tokens": "input_tokens",
    "cache_write_1h_tokens": "cache_write_tokens",
    "input_audio_tokens": "input_tokens",
    "output_audio_tokens": "output_tokens",
    "reasoning_tokens": "output_tokens",
}
"""For a counter without a rate, the counter by whose rate its units are charged."""

_RateRow = tuple[Decimal | None, ...]
"""The rate of each counter, in the order of `COUNTERS`."""


def cost_of(price: PricePublished, usage: Usage) -> Decimal | None:
    """Compute what a call costs; see `PriceTable.cost_of`."""
    return PriceTable(price).cost_of(usage)


class PriceTable:
    """A price, prepared for computing costs."""

    def __init__(self, price: PricePublished) -> None:
        self._exponent = 1 - len(str(price.per or PER_DEFAULT))
        self._rates = _row(price.rates)
        self._tiers = [(tier.above_input_tokens, _row(tier.rates, price.rates)) for tier in price.tiers or ()]

    def cost_of(self, usage: Usage) -> Decimal | None:
        """Compute what a call costs.

        Each unit is charged once, by its own rate or by that of the counter that includes it. The only rounding is at
        the end, half-even to 18 decimals.

        Args:
            usage: What the call used.

        Returns:
            The cost in the price's currency; None if the usage has units that the price has no rate for.

        Raises:
            ValueError: The cost has more than 10 digits before the decimal point.
        """
        total = money.ZERO
        for units, rate in zip(_units(usage), self._rates_for(usage), strict=True):
            if not units:
                continue
            if rate is not None:
                total = money.EXACT.fma(rate, units, total)
            elif self.without_rate(usage):
                return None
        return money.canonical(money.EXACT.scaleb(total, self._exponent)) if total else money.ZERO

    def without_rate(self, usage: Usage) -> tuple[str, ...]:
        """Return the counters whose units the price cannot charge.

        A rate of 0 says that units are free. `requests` need no rate if something else is charged: most calls are
        charged by what they use, not by their number.
        """
        rows = zip(COUNTERS, _units(usage), self._rates_for(usage), strict=True)
        used = [(name, rate) for name, units, rate in rows if units]
        missing = tuple(name for name, rate in used if rate is None)
        return () if missing == ("requests",) and len(used) > 1 else missing

    def _rates_for(self, usage: Usage) -> _RateRow:
        rates = self._rates
        if self._tiers:
            tokens = usage.input_tokens or 0
            for above, of_tier in self._tiers:
                if tokens > above:
                    rates = of_tier
        return rates


def _units(usage: Usage) -> tuple[int, ...]:
    """Divide the usage into the units of each counter of `COUNTERS`, so that no unit is in two counters.

    Audio tokens that were read from or written to a cache are charged as those; reasoning in audio as reasoning.
    """
    read, write, hour = usage.cache_read_tokens or 0, usage.cache_write_tokens or 0, usage.cache_write_1h_tokens or 0
    fresh = (usage.input_tokens or 0) - read - write
    audio_in = min(usage.input_audio_tokens or 0, fresh)
    reasoning = usage.reasoning_tokens or 0
    answer = (usage.output_tokens or 0) - reasoning
    audio_out = min(usage.output_audio_tokens or 0, answer)
    return (
        fresh - audio_in,
        answer - audio_out,
        read,
        write - hour,
        hour,
        reasoning,
        audio_in,
        audio_out,
        usage.images or 0,
        usage.seconds or 0,
        usage.characters or 0,
        usage.searches or 0,
        usage.requests or 0,
    )


def _row(*rates: Rates) -> _RateRow:
    """Return the rate of each counter: of the first of these that has one, or else of the counter charged like it."""
    return tuple(_rate(rates, name) for name in COUNTERS)


def _rate(rates: tuple[Rates, ...], name: str) -> Decimal | None:
    counter: str | None = name
    while counter is not None:
        for each in rates:
            rate: Decimal | None = getattr(each, counter)
            if rate is not None:
                return rate
        counter = CHARGED_LIKE.get(counter)
    return None
