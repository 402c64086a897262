"""Splitting a request body: large arrays are counted first, and a broken one costs few steps."""

import pytest

from ledger.domain.errors import Malformed, TooLarge
from ledger.log import request_body
from ledger.log.request_body import split_body

DEEP = b"[" * 5_000 + b"]" * 5_000


def split(body: bytes) -> list[bytes]:
    """Split a JSON body."""
    return split_body(body, ndjson=False)[0]


def test_the_elements_of_an_array_with_many_commas_are_counted() -> None:
    numbers = b"0" + b",0" * 250_000

    assert split(b"[[%b]]" % numbers) == [b"[%b]" % numbers]
    assert len(split(b"[[%b]%b]" % (numbers, b",0" * 4_999))) == 5_000
    for body in (b"[%b]" % numbers, b"[[%b]%b]" % (numbers, b",0" * 5_000)):
        with pytest.raises(TooLarge, match="more than 5,000 events"):
            split(body)


def test_deep_elements_are_split_up_to_a_number_of_brackets_in_the_whole_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_body, "DEEP_TOKENS_MAX", 25_000)

    assert split(b"[%b, {}, %b]" % (DEEP, DEEP)) == [DEEP, b"{}", DEEP]
    with pytest.raises(Malformed):
        split(b"[%b, {}, %b, %b]" % (DEEP, DEEP, DEEP))


def test_in_a_broken_array_with_many_commas_no_element_is_searched_for(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[bytes] = []
    monkeypatch.setattr(request_body, "_elements", searched.append)

    with pytest.raises(Malformed, match="JSON is malformed"):
        split(b"[[0%b],]" % (b",0" * 250_000))

    assert searched == []
