"""Exact money: amounts of at most 10 digits before and 18 after the point, currencies, ratios.

Amounts are `Decimal` everywhere. What is finer than 18 decimals is rounded half-even once, when it is read. Sums may
exceed the range of one amount, so all arithmetic goes through `EXACT`: its precision holds any sum of a
`numeric(38,18)`, and it raises an error instead of rounding.
"""

from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Context, Decimal, Inexact, InvalidOperation, Overflow

DECIMALS_MAX = 18
"""Digits after the decimal point of any amount. A token may cost 8.75e-9, a sum computed in floats has 17 digits."""

DIGITS_BEFORE_POINT_MAX = 10
"""Digits before the decimal point of a single amount, as in `numeric(28,18)`."""

RATIO_DECIMALS = 10
"""Digits after the decimal point of ratios, percentages and rates."""

ZERO = Decimal(0)

DEFAULT_CURRENCY = "USD"

JSON_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
"""A regular expression of amounts in new events. `Decimal` also reads "1_0", " 7 ", "+1" and the digits of Arabic."""

EXACT = Context(prec=100, traps=[InvalidOperation, Overflow, Inexact])
"""The context for adding and subtracting money. A result that needs rounding raises `Inexact`."""

_ROUNDING = Context(prec=100, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation, Overflow])
_SMALLEST = Decimal(1).scaleb(-DECIMALS_MAX)
_SMALLEST_RATIO = Decimal(1).scaleb(-RATIO_DECIMALS)

# ISO 4217, active codes of currencies and funds (list one, 2025), without metals and test codes.
CURRENCIES = frozenset(
    """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF
    CHE CHF CHW CLF CLP CNY COP COU CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD
    GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP
    LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB
    PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB
    TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD USN UYI UYU UYW UZS VED VES VND VUV WST XAD XAF XCD XCG XOF XPF
    YER ZAR ZMW ZWG
    """.split()
)


def canonical(amount: Decimal) -> Decimal:
    """Return the amount rounded to 18 decimals, without trailing zeros and with a non-positive exponent.

    Raises:
        ValueError: It is not finite, or has more than 10 digits before the decimal point.
    """
    whole, _, decimals = str(amount).partition(".")
    is_in_range = len(whole) <= DIGITS_BEFORE_POINT_MAX and len(decimals) <= DECIMALS_MAX
    if is_in_range and decimals.isdigit() and decimals[-1] != "0":
        # The usual case, such as 0.000125; the checks below take twice as long.
        return amount
    if not amount.is_finite():
        raise ValueError("must be a finite number")
    # adjusted() is the exponent of the first digit: the range is checked before 1e999999999 is expanded.
    if amount and amount.adjusted() >= DIGITS_BEFORE_POINT_MAX:
        raise ValueError(_TOO_LARGE)
    return _without_trailing_zeros(rounded(amount))


def rounded(amount: Decimal) -> Decimal:
    """Return the amount rounded half-even to 18 decimals.

    Raises:
        ValueError: After rounding it has more than 10 digits before the decimal point.
    """
    exponent = amount.as_tuple().exponent
    assert isinstance(exponent, int)
    if exponent >= -DECIMALS_MAX:
        return amount
    amount = _ROUNDING.quantize(amount, _SMALLEST)
    if amount and amount.adjusted() >= DIGITS_BEFORE_POINT_MAX:
        raise ValueError(_TOO_LARGE)
    return amount


def _without_trailing_zeros(amount: Decimal) -> Decimal:
    if not amount:
        return ZERO
    sign, digits, exponent = amount.as_tuple()
    assert isinstance(exponent, int)
    if not exponent or (exponent < 0 and digits[-1]):
        return amount
    if exponent > 0:
        return Decimal((sign, digits + (0,) * exponent, 0))
    length = len(digits)
    while exponent < 0 and length > 1 and digits[length - 1] == 0:
        length -= 1
        exponent += 1
    return Decimal((sign, digits[:length], exponent))


_TOO_LARGE = f"must have at most {DIGITS_BEFORE_POINT_MAX} digits before the decimal point"


def plain(amount: Decimal) -> str:
    """Write an amount or a sum without exponent and without trailing zeros ("0.000125", "2500")."""
    text = str(amount)
    if "E" in text:
        text = format(amount, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


add: Callable[[Decimal, Decimal], Decimal] = EXACT.add
"""Add exactly."""

subtract: Callable[[Decimal, Decimal], Decimal] = EXACT.subtract
"""Subtract exactly."""


negated: Callable[[Decimal], Decimal] = EXACT.minus
"""Change the sign exactly; 0 stays 0."""


def ratio(numerator: Decimal, denominator: Decimal) -> Decimal:
    """Divide, rounded half-even to 10 decimals; 0 unless the denominator is positive."""
    if denominator <= 0:
        return ZERO
    return _ROUNDING.quantize(_ROUNDING.divide(numerator, denominator), _SMALLEST_RATIO)


def percentage(part: Decimal, whole: Decimal) -> Decimal:
    """Return the part as a percentage of the whole, rounded half-even to 10 decimals; 0 unless both are positive."""
    return ratio(EXACT.multiply(max(part, ZERO), Decimal(100)), whole)


def return_on_investment(revenue: Decimal, spend: Decimal) -> Decimal:
    """Return (revenue - spend) / spend, rounded half-even to 10 decimals; 0 unless it is positive."""
    return ratio(subtract(revenue, spend), spend)
