"""Canonical JSON by value: one text for all spellings of a value, so equal values are equal bytes."""

import json
import re
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal

import msgspec

COST_MAX = 20_000
"""The largest cost of two texts that are compared by value, about 20 ms of processor time. Larger ones are compared as
they are written."""

CHARACTERS_PER_VALUE = 64
"""So many characters take about as long as a value."""

INTEGER_DIGITS_MAX = 39
"""Longer integers are written with an exponent, so that 1e999 is not expanded."""

_NUMBER = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")
_LONG_INTEGER = re.compile(rb"[0-9]{%d}" % (INTEGER_DIGITS_MAX + 1))
_SHORT_EXPONENT = 18
_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)


def canonical_cost(text: bytes) -> int:
    """Return how many microseconds of processor time `canonical_json` takes at most, roughly."""
    return text.count(b",") + text.count(b"[") + text.count(b"{") + len(text) // CHARACTERS_PER_VALUE


def canonical_json(text: str | bytes) -> bytes:
    """Return the canonical form of a JSON text; it is meant for comparisons, not to be stored.

    The order of keys, white space, escapes, and the spelling of numbers (1.0, 1, 10e-1) do not matter; true and 1
    differ. If an object has a member twice, the last one counts. The work is linear in the length of the text, however
    large the exponents are; `canonical_cost` estimates it.
    """
    body = text.encode() if isinstance(text, str) else text
    # msgspec is much faster, but decodes integers without a hook.
    decode = _long_integers.decode if _LONG_INTEGER.search(body) else _decoder.decode
    return msgspec.json.encode(decode(body.decode()), order="sorted")


def _canonical_number(text: str) -> int | msgspec.Raw:
    """Return an integer; or the significant digits and an exponent of ten if it has decimals or is long: 15e-1."""
    match = _NUMBER.fullmatch(text)
    assert match is not None
    sign, whole, decimals, exponent = match.groups("")
    digits = whole + decimals
    significant = digits.rstrip("0")
    if not significant:
        return 0
    moved = _moved(exponent, len(digits) - len(significant) - len(decimals))
    significant = significant.lstrip("0")
    if moved[0] != "-" and len(moved) <= 2 and len(significant) + int(moved) <= INTEGER_DIGITS_MAX:
        return int(sign + significant + "0" * int(moved))
    return msgspec.Raw(f"{sign}{significant}e{moved}".encode())


def _moved(exponent: str, places: int) -> str:
    """Add to an exponent. Python's integers are not used for long ones: their texts take quadratic time."""
    if len(exponent) <= _SHORT_EXPONENT:
        return str(int(exponent or 0) + places)
    return format(_EXACT.add(Decimal(exponent), Decimal(places)), "f")


_decoder = msgspec.json.Decoder(float_hook=_canonical_number)
_long_integers = json.JSONDecoder(parse_int=_canonical_number, parse_float=_canonical_number)
