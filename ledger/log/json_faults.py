"""Faults of JSON texts: members named twice, NUL, lone surrogates, integers of thousands of digits."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

NODES_MAX = 50_000
"""The most values of an event that are searched for faults; they take about 50 ms."""

NAME_CHARACTERS_MAX = 100
"""The most characters of a member's name that a path shows."""

MESSAGE_CHARACTERS_MAX = 1_000
"""The most characters of a message about a request: it may quote a value, and a request may have 16 MiB."""

INTEGER_DIGITS_MAX = 4_300
"""JSON readers such as Python's refuse longer integers."""


class Fault(NamedTuple):
    """A fault of an event: the path of the value, and a message."""

    path: str
    message: str


def shortened(message: str) -> str:
    """Return a message, cut if it is longer than `MESSAGE_CHARACTERS_MAX`."""
    return message if len(message) <= MESSAGE_CHARACTERS_MAX else f"{message[:MESSAGE_CHARACTERS_MAX]}…"


def repeats_member(text: bytes, value: Any) -> bool:
    """Whether an object in a JSON text names a member twice.

    Args:
        text: the text.
        value: the decoded text. Of two members of one name it has only the last, so it has fewer quotes.
    """
    return _quotes(text) != msgspec.json.encode(value).count(b'"')


def _quotes(text: bytes) -> int:
    if b"\\u0022" in text:
        # The escape of a quote; what follows an escaped backslash is none.
        text = text.replace(b"\\\\", b"").replace(b"\\u0022", b'\\"')
    return text.count(b'"')


def faulty_texts(text: str) -> Iterator[Fault]:
    """Yield the faults of a JSON text, each with its path."""
    nodes = _nodes("$", _with_all_members.decode(text))
    for (path, value), _ in zip(nodes, range(NODES_MAX), strict=False):
        if isinstance(value, _Object):
            seen = set()
            for name, _member in value:
                if name in seen:
                    yield Fault(f"{path}.{_shown(name)}", "the object names this member more than once")
                seen.add(name)
                yield from _faulty_string(f"{path}.{_shown(name)}", name)
        elif isinstance(value, _Integer):
            if len(value.lstrip("-")) > INTEGER_DIGITS_MAX:
                yield Fault(path, f"an integer must have at most {INTEGER_DIGITS_MAX:,} digits")
        elif isinstance(value, str):
            yield from _faulty_string(path, value)


def members_of(text: str) -> dict[str, str]:
    """Return the members of a JSON object, at most `NODES_MAX`, each with the JSON text of its value."""
    members: dict[str, str] = {}
    index = _after_space(text, text.index("{") + 1)
    while text[index] == '"' and len(members) < NODES_MAX:
        name, index = _with_all_members.raw_decode(text, index)
        start = _after_space(text, text.index(":", index) + 1)
        _, end = _with_all_members.raw_decode(text, start)
        members[name] = text[start:end]
        index = _after_space(text, end)
        if text[index] == ",":
            index = _after_space(text, index + 1)
    return members


class _Object(list[tuple[str, Any]]):
    """All members of an object, also those that are named twice."""


class _Integer(str):
    """The text of an integer."""

    __slots__ = ()


def _nodes(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every value inside a value, and the value itself."""
    yield path, value
    if isinstance(value, _Object):
        for name, member in value:
            yield from _nodes(f"{path}.{_shown(name)}", member)
    elif isinstance(value, list):
        for index, element in enumerate(value):
            yield from _nodes(f"{path}[{index}]", element)


def _faulty_string(path: str, text: str) -> Iterator[Fault]:
    if "\0" in text:
        yield Fault(path, "a text must not contain NUL (U+0000)")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        lone = f"U+{ord(text[error.start]):04X}"
        yield Fault(path, f"a text must not contain half of a surrogate pair ({lone})")


def _shown(name: str) -> str:
    shown = name[:NAME_CHARACTERS_MAX]
    return shown if shown.isprintable() else json.dumps(shown)[1:-1]


def _after_space(text: str, index: int) -> int:
    while text[index] in " \t\r\n":
        index += 1
    return index


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_with_all_members = json.JSONDecoder(
    object_pairs_hook=_Object, parse_int=_Integer, parse_float=lambda text: None, parse_constant=_refuse_constant
)
