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

_RateRow = tuple[int | None, ...]
"""The rate of each counter, in the order of `COUNTERS`, in units of the last decimal that a rate of the price has.

Products and sums of integers are exact, and take a tenth of the time of decimals.
"""

_INPUT = COUNTERS.index("input_tokens")
_OUTPUT = COUNTERS.index("output_tokens")
_READ = COUNTERS.index("cache_read_tokens")
_WRITE = COUNTERS.index("cache_write_tokens")
_HOUR = COUNTERS.index("cache_write_1h_tokens")
_REASONING = COUNTERS.index("reasoning_tokens")
_AUDIO_IN = COUNTERS.index("input_audio_tokens")
_AUDIO_OUT = COUNTERS.index("output_audio_tokens")
_REQUESTS = COUNTERS.index("requests")


class PriceTable:
    """A price, prepared for computing costs."""

    def __init__(self, price: PricePublished) -> None:
        rows = [_row(price.rates), *(_row(tier.rates, price.rates) for tier in price.tiers or ())]
        decimals = max((_decimals(rate) for row in rows for rate in row if rate is not None), default=0)
        self._exponent = 1 - len(str(price.per or PER_DEFAULT)) - decimals
        self._rates, *of_tiers = [_in_units(row, decimals) for row in rows]
        above = (tier.above_input_tokens for tier in price.tiers or ())
        self._tiers = list(zip(above, of_tiers, strict=True))

    def cost_of(self, usage: Usage) -> Decimal | None:
        """Compute what a call costs.

        Each unit is charged once, by its own rate or by that of the counter that includes it. Tokens that may be in two
        counters with rates of their own, such as cached audio, have no price: the usage does not say how many they are.
        The only rounding is at the end, half-even to 18 decimals.

        Args:
            usage: What the call used.

        Returns:
            The cost in the price's currency; None if the usage has units for which the price says no rate.

        Raises:
            ValueError: The cost has more than 10 digits before the decimal point.
        """
        total, rates = 0, self._rates_for(usage)
        divided = _units(usage, rates)
        if _ambiguous(divided):
            return None
        for units, rate in zip(divided, rates, strict=True):
            if not units:
                continue
            if rate is not None:
                total += rate * units
            elif self.without_rate(usage):
                return None
        if not total:
            return money.ZERO
        exponent = self._exponent
        while exponent < 0 and not total % 10:
            total, exponent = total // 10, exponent + 1
        cost = money.EXACT.scaleb(Decimal(total), exponent)
        # Without trailing zeros it is canonical already, unless it is too fine or too large.
        is_canonical = exponent >= -money.DECIMALS_MAX and cost.adjusted() < money.DIGITS_BEFORE_POINT_MAX
        return cost if is_canonical else money.canonical(cost)

    def without_rate(self, usage: Usage) -> tuple[str, ...]:
        """Return the counters whose units the price cannot charge.

        A rate of 0 says that units are free. `requests` need no rate if something else is charged: most calls are
        charged by what they use, not by their number.
        """
        rates = self._rates_for(usage)
        units = _units(usage, rates)
        rows = zip(COUNTERS, units, rates, strict=True)
        used = [(name, rate) for name, count, rate in rows if count]
        missing = tuple(name for name, rate in used if rate is None)
        return () if missing == ("requests",) and len(used) > 1 else missing

    def ambiguous(self, usage: Usage) -> tuple[str, ...]:
        """Return the counters of which it is not known which tokens are also in another with a rate of its own."""
        return _ambiguous(_units(usage, self._rates_for(usage)))

    def _rates_for(self, usage: Usage) -> _RateRow:
        rates = self._rates
        if self._tiers:
            tokens = usage.input_tokens or 0
            for above, of_tier in self._tiers:
                if tokens > above:
                    rates = of_tier
        return rates


def _units(usage: Usage, rates: _RateRow) -> tuple[int, ...]:
    """Divide the usage into the units of each counter of `COUNTERS`, so that no unit is in two counters.

    Beside audio, tokens at the rate of their whole are counted there: they may be audio as well. A usage without
    `requests` is that of one request.
    """
    read, hour, reasoning = usage.cache_read_tokens or 0, usage.cache_write_1h_tokens or 0, usage.reasoning_tokens or 0
    write = (usage.cache_write_tokens or 0) - hour
    audio_in, audio_out = usage.input_audio_tokens or 0, usage.output_audio_tokens or 0
    if audio_in:
        parts = (_AUDIO_IN, audio_in), (_READ, read), (_WRITE, write), (_HOUR, hour)
        audio_in, read, write, hour = _apart(rates, _INPUT, *parts)
    if audio_out:
        audio_out, reasoning = _apart(rates, _OUTPUT, (_AUDIO_OUT, audio_out), (_REASONING, reasoning))
    return (
        (usage.input_tokens or 0) - read - write - hour - audio_in,
        (usage.output_tokens or 0) - reasoning - audio_out,
        read,
        write,
        hour,
        reasoning,
        audio_in,
        audio_out,
        usage.images or 0,
        usage.seconds or 0,
        usage.characters or 0,
        usage.searches or 0,
        int(rates[_REQUESTS] is not None) if usage.requests is None else usage.requests,
    )


def _apart(rates: _RateRow, whole: int, *parts: tuple[int, int]) -> tuple[int, ...]:
    """Return the units of each part, 0 if they are charged at the rate of the whole."""
    return tuple(units if rates[part] != rates[whole] else 0 for part, units in parts)


def _ambiguous(units: tuple[int, ...]) -> tuple[str, ...]:
    """Return the counters of which it is not known which tokens are also in another with a rate of its own."""
    audio_in = units[_AUDIO_IN] and (units[_READ] or units[_WRITE] or units[_HOUR])
    audio_out = units[_AUDIO_OUT] and units[_REASONING]
    return ("input_audio_tokens",) * bool(audio_in) + ("output_audio_tokens",) * bool(audio_out)


def _decimals(rate: Decimal) -> int:
    exponent = rate.as_tuple().exponent
    assert isinstance(exponent, int)
    return max(0, -exponent)


def _in_units(row: tuple[Decimal | None, ...], decimals: int) -> _RateRow:
    """Return rates as multiples of the last of so many decimals."""
    return tuple(None if rate is None else int(money.EXACT.scaleb(rate, decimals)) for rate in row)


def _row(*rates: Rates) -> tuple[Decimal | None, ...]:
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
