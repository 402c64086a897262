"""Split a request body, an array or NDJSON, into its events: at most 5,000 events and 16 MiB."""

import json
import re
from collections.abc import Iterator
from functools import cache

import msgspec

from ledger.domain.errors import Malformed, TooLarge

REQUEST_EVENTS_MAX = 5_000

BODY_BYTES_MAX = 16 * 1024 * 1024
BODY_TOO_LARGE = f"the body is larger than {BODY_BYTES_MAX // 1024**2} MiB; split it into several requests"

COMMAS_MAX = 40 * REQUEST_EVENTS_MAX
"""Typical requests have fewer commas. If there are more, the elements of an array are counted before it is split, and
an event that breaks the array is not searched for."""

DEEP_TOKENS_MAX = 100_000
"""The most brackets and strings of the elements of a body that are nested too deeply for a JSON reader."""

_SPACE = re.compile(r"[ \t\r\n]*")
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_array = msgspec.json.Decoder(list[msgspec.Raw])


def split_body(body: bytes, *, ndjson: bool) -> tuple[list[bytes], bool]:
    """Split a request body into the JSON texts of its events.

    A fault of a single event is not refused here: invalid UTF-8, lone surrogates, deep nesting.

    Returns:
        the texts, and whether the body is a batch: an array or NDJSON.

    Raises:
        Malformed: the body is empty, or is neither NDJSON nor JSON.
        TooLarge: the body has more than 5,000 events.
    """
    start = body.lstrip()[:1]
    if ndjson:
        events = [line for line in body.split(b"\n") if line and not line.isspace()]
    elif start == b"[":
        events = _split_array(body)
    else:
        events = [body] if start else []
    if not events:
        raise Malformed("the body contains no event")
    if len(events) > REQUEST_EVENTS_MAX:
        raise TooLarge(f"{len(events):,} events in one request; send at most {REQUEST_EVENTS_MAX:,}")
    return events, ndjson or start == b"["


def json_problem(error: Exception) -> str:
    """Describe why a text is not JSON that the ledger reads."""
    if isinstance(error, RecursionError):
        return "the JSON is nested too deeply; at most 100 levels are allowed"
    if isinstance(error, UnicodeDecodeError):
        return f"not valid UTF-8 at byte {error.start}"
    return str(error)


def _split_array(body: bytes) -> list[bytes]:
    is_large = body.count(b",") > COMMAS_MAX
    if is_large:
        _require_few_elements(body)
    try:
        return [bytes(raw) for raw in _array.decode(body)]
    except (msgspec.DecodeError, RecursionError) as error:
        try:
            if not is_large:
                return list(_elements(body))
        except (ValueError, RecursionError):
            pass
        raise Malformed(json_problem(error)) from None


def _require_few_elements(body: bytes) -> None:
    """Refuse an array of more than 5,000 elements without decoding them all: 16 MiB can hold 8 million."""
    try:
        _few_elements().decode(body)
    except msgspec.ValidationError:
        raise TooLarge(
            f"more than {REQUEST_EVENTS_MAX:,} events in one request; send at most {REQUEST_EVENTS_MAX:,}"
        ) from None
    except (msgspec.DecodeError, RecursionError):
        return  # Not JSON: splitting the body raises the error with a better message.


@cache
def _few_elements() -> "msgspec.json.Decoder[msgspec.Struct]":
    """Return a decoder that stops after the largest number of elements, which no option of a list does."""
    fields = [(f"element_{number}", msgspec.Raw, msgspec.Raw(b"")) for number in range(REQUEST_EVENTS_MAX)]
    return msgspec.json.Decoder(msgspec.defstruct("Few", fields, array_like=True, forbid_unknown_fields=True))


def _elements(body: bytes) -> Iterator[bytes]:
    """Yield the text of each element of an array, also of those that are not UTF-8 or have a lone surrogate.

    Raises:
        ValueError: the body is not an array of JSON values.
    """
    text = body.decode(errors="surrogateescape")
    index = text.index("[") + 1
    deep_tokens = iter(range(DEEP_TOKENS_MAX))
    while True:
        start = _after_space(text, index)
        end = _end_of_value(text, start, deep_tokens)
        yield text[start:end].encode(errors="surrogateescape")
        index = _after_space(text, end) + 1
        if (separator := text[index - 1 : index]) != ",":
            break
    if separator != "]" or _after_space(text, index) < len(text):
        raise ValueError("not an array")


def _after_space(text: str, index: int) -> int:
    match = _SPACE.match(text, index)
    assert match is not None
    return match.end()


def _end_of_value(text: str, start: int, deep_tokens: Iterator[int]) -> int:
    try:
        return _scanner.raw_decode(text, start)[1]
    except RecursionError:
        return _end_of_deep_value(text, start, deep_tokens)


def _end_of_deep_value(text: str, start: int, deep_tokens: Iterator[int]) -> int:
    """Return the end of an object or array by counting brackets; what is inside is judged later.

    Args:
        text: the array.
        start: the index of the value.
        deep_tokens: ends after the most brackets and strings that may be read.
    """
    depth = 0
    for _, token in zip(deep_tokens, _STRING_OR_BRACKET.finditer(text, start), strict=False):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
        if depth == 0:
            return token.end()
    raise ValueError("the brackets are not balanced")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_scanner = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refuse_constant)
