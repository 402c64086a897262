"""Any two spellings of a JSON value are the same content, and another value is a conflict."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.errors import EventIdConflict
from ledger.domain.event import Receipt
from ledger.domain.json_values import canonical_json
from tests.domain.contract import json_value
from tests.domain.helpers import MemoryLedger, Sent, later
from tests.domain.json_spelling import OBJECTS, VALUES, spelling
from tests.events import content, job

FIELDS = {
    "input_data": ('{"agent_type":"analyst",%s}', job()),
    "output_data": ("{%s}", later(job(), "completed")),
    "metadata": ('{"title":"T","content":"C","content_type":"blog",%s}', content()),
}


def with_object(field: str, text: str) -> tuple[list[Sent], Sent]:
    """Return the events that must come first, and an event whose field has this JSON text."""
    data, sent = FIELDS[field]
    event = {**sent, "data": (data % f'"{field}":{text}').encode()}
    opened = {**job(), "id": sent.get("stream_id", "")}
    return [opened, later(opened, "started")] if field == "output_data" else [], event


@pytest.mark.parametrize("field", FIELDS)
@given(data=st.data(), value=OBJECTS)
def test_a_repeat_in_another_spelling_is_a_duplicate(field: str, data: st.DataObject, value: object) -> None:
    ledger = MemoryLedger()
    before, first = with_object(field, spelling(data.draw, value))
    _, second = with_object(field, spelling(data.draw, value))
    ledger.accept(*before, first)

    receipt = ledger.accept(second)

    assert receipt.duplicate


@given(data=st.data(), value=VALUES)
def test_a_repeat_is_a_conflict_exactly_if_a_value_differs(data: st.DataObject, value: object) -> None:
    other = data.draw(st.sampled_from([value, str(value), [value], {"a": value}, None, True, 0, 1]) | VALUES)
    ledger = MemoryLedger()
    _, first = with_object("input_data", f'{{"x":{spelling(data.draw, value)}}}')
    _, second = with_object("input_data", f'{{"x":{spelling(data.draw, other)}}}')
    ledger.accept(first)

    verdict = ledger.send(second)

    assert isinstance(verdict, Receipt if json_value(value) == json_value(other) else EventIdConflict)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0", "-0"),
        ("0", "0.000e99999"),
        ("1e2", "100"),
        ("1e1000000000000000000", "10e999999999999999999"),
        ("1e" + "9" * 100_000, "10e" + "9" * 99_999 + "8"),
        ("1." + "0" * 100_000, "1"),
        ('{"a":1,"a":2}', '{"a":2}'),
    ],
    ids=lambda text: text[:30],
)
def test_equal_values_have_one_canonical_form(one: str, other: str) -> None:
    assert canonical_json(one) == canonical_json(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "true"),
        ("0", "false"),
        ("0", "null"),
        ("1", '"1"'),
        ("1e2", "1e3"),
        ("9007199254740993", "9007199254740992"),
    ],
)
def test_different_values_have_different_canonical_forms(one: str, other: str) -> None:
    assert canonical_json(one) != canonical_json(other)


def test_a_huge_exponent_is_not_expanded() -> None:
    assert len(canonical_json("1e999999999999")) < 20
