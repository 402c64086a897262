"""JSON values and their spellings, drawn by hypothesis: order of keys, escapes, numbers, white space."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

NUMBERS = st.builds(
    lambda sign, digits, exponent: Decimal((sign, tuple(map(int, str(digits))), exponent)),
    st.integers(0, 1),
    st.integers(0, 999) | st.integers(0, 10**30),
    st.integers(-5, 5) | st.integers(-(10**30), 10**30).map(lambda exponent: exponent % 10**9),
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=4)


def spelling(draw: Callable[[st.SearchStrategy[Any]], Any], value: Any) -> str:
    """Draw a JSON text of a value."""
    space = draw(st.sampled_from(["", "", " ", "\n\t"]))
    if isinstance(value, dict):
        members = [f"{_text(draw, key)}{space}:{spelling(draw, value[key])}" for key in draw(st.permutations([*value]))]
        return f"{{{space}{f',{space}'.join(members)}}}"
    if isinstance(value, list):
        return f"[{f'{space},'.join(spelling(draw, element) for element in value)}{space}]"
    if isinstance(value, Decimal):
        return _number(draw, value)
    return _text(draw, value) if isinstance(value, str) else json.dumps(value)


def _text(draw: Callable[[st.SearchStrategy[Any]], Any], text: str) -> str:
    form = draw(st.sampled_from(["plain", "ASCII", "escaped"]))
    if form != "escaped":
        return json.dumps(text, ensure_ascii=form != "plain")
    units = text.encode("utf-16-be")
    return '"' + "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2)) + '"'


def _number(draw: Callable[[st.SearchStrategy[Any]], Any], number: Decimal) -> str:
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    zeros = draw(st.integers(0, 2))
    text = "".join(map(str, digits)) + "0" * zeros
    decimals = draw(st.integers(0, len(text) - 1))
    whole, fraction = int(text[: len(text) - decimals]), text[len(text) - decimals :]
    moved = exponent - zeros + decimals
    mark = draw(st.sampled_from(["e", "E"])) + draw(st.sampled_from(["", "+"] if moved >= 0 else [""]))
    power = f"{mark}{moved}" if moved or draw(st.booleans()) else ""
    return f"{'-' * sign}{whole}{'.' * bool(fraction)}{fraction}{power}"
