"""Canonical JSON by value: one text for all spellings of a value, so equal values are equal bytes."""

import json
import re
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal

import msgspec

_NUMBER = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")
_SHORT_EXPONENT = 18
_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)


def canonical_json(text: str | bytes) -> bytes:
    """Return the canonical form of a JSON text; it is meant for comparisons, not to be stored.

    The order of keys, white space, escapes, and the spelling of numbers (1.0, 1, 10e-1) do not matter; true and 1
    differ. If an object has a member twice, the last one counts. The work is linear in the length of the text, however
    large the exponents are.
    """
    return msgspec.json.encode(_decoder.decode(text if isinstance(text, str) else text.decode()), order="sorted")


def _canonical_number(text: str) -> msgspec.Raw:
    """Write a number with its significant digits as an integer and an exponent of ten: 1.50 is 15e-1."""
    match = _NUMBER.fullmatch(text)
    assert match is not None
    sign, whole, decimals, exponent = match.groups("")
    digits = whole + decimals
    significant = digits.rstrip("0")
    if not significant:
        return msgspec.Raw(b"0")
    moved = _moved(exponent, len(digits) - len(significant) - len(decimals))
    return msgspec.Raw(f"{sign}{significant.lstrip('0')}e{moved}".encode())


def _moved(exponent: str, places: int) -> str:
    """Add to an exponent. Python's integers are not used for long ones: their texts take quadratic time."""
    if len(exponent) <= _SHORT_EXPONENT:
        return str(int(exponent or 0) + places)
    return format(_EXACT.add(Decimal(exponent), Decimal(places)), "f")


_decoder = json.JSONDecoder(parse_int=_canonical_number, parse_float=_canonical_number)
