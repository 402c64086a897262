"""Checks of JSON texts from clients: UTF-8, NUL, lone surrogates, long numbers, nesting, many values."""

import re

import msgspec

from ledger.domain.codec import InvalidFieldError

NESTING_MAX = 100
"""Nested arrays and objects in a request: far fewer than any JSON reader downstream supports."""

VALUES_MAX = 200_000
"""The most values in a new event: reading all of them takes a few milliseconds."""


def check_text(body: bytes) -> None:
    """Refuse JSON that PostgreSQL cannot store, and nesting that other JSON readers do not support.

    Raises:
        UnicodeDecodeError: The body is not UTF-8.
        msgspec.DecodeError: It has an escaped lone surrogate, or a number with thousands of digits.
        RecursionError: It is nested deeper than `NESTING_MAX` levels.
        InvalidFieldError: A text has a NUL character.
    """
    if not body.isascii():
        body.decode()
    if body.count(b"{") + body.count(b"[") > NESTING_MAX and _nesting(body) > NESTING_MAX:
        raise RecursionError(f"nested deeper than {NESTING_MAX} levels")
    # A single byte is found five times as fast as a sequence of bytes.
    has_escapes = _BACKSLASH in body and b"\\u" in body
    if has_escapes and b"\\u0000" in body and _NUL.search(body):
        raise InvalidFieldError("", "a text must not contain NUL (U+0000)")
    # Both are rare, so the whole body is decoded only for them.
    if has_escapes or (len(body) >= _DIGITS_MANY and _MANY_DIGITS.search(body)):
        _ANY_JSON.decode(body)


def check_values(body: bytes) -> None:
    """Refuse a new event with more than `VALUES_MAX` values; events in the log may have more.

    Raises:
        InvalidFieldError: The body has more commas and opening brackets outside strings.
    """
    if len(body) > VALUES_MAX and _separators(body) > VALUES_MAX:
        # A text of commas is one value.
        outside, strings = _STRING.subn(b"", body, count=2 * VALUES_MAX)
        if strings == 2 * VALUES_MAX or _separators(outside) > VALUES_MAX:
            raise InvalidFieldError("", f"an event must have at most {VALUES_MAX:,} values")


def _separators(body: bytes) -> int:
    return body.count(b",") + body.count(b"[") + body.count(b"{")


_BACKSLASH = ord("\\")
_DIGITS_MANY = 1000
_ANY_JSON = msgspec.json.Decoder(float_hook=str)
# A backslash before u0000 that is not itself escaped.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_MANY_DIGITS = re.compile(rb"(?<![0-9])[0-9]{%d}" % _DIGITS_MANY)
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_STRING_OR_BRACKET = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)


def _nesting(body: bytes) -> int:
    depth = deepest = 0
    for token in _STRING_OR_BRACKET.finditer(body):
        first = body[token.start()]
        if first in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif first in b"]}":
            depth -= 1
    return deepest
