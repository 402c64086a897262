"""Rules of new events: members named once, money as JSON numbers, no blank names, no price sent.

Stored events may break them. Since every event that is appended is checked, there is a fast check first: if the number
of colons equals that of the decoded members, no member is repeated.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from ledger.domain import original
from ledger.domain.codec import EventData, FieldPlan, plans_of
from ledger.domain.event import Candidate
from ledger.domain.event_type import EventType
from ledger.domain.job import ERROR_MESSAGE_REQUIRED, JobRecorded
from ledger.domain.money import JSON_NUMBER
from ledger.domain.price import PricePublished
from ledger.log.blank_texts import is_blank
from ledger.log.json_faults import Fault, repeats_member
from ledger.log.new_event import EVENT_TYPES, NewEvent

_is_json_number = re.compile(JSON_NUMBER).fullmatch
_BACKSLASH = ord("\\")
QUOTES_OF_TWO_NAMES = 4
_any = msgspec.json.Decoder(float_hook=float)


PRICE_SENT = Fault("$.data.price", "is set by the service; send `usage` without a cost")
NOT_A_NUMBER = "must be written as a JSON number, such as 12 or 0.000125"


class _Rules(NamedTuple):
    """The rules of a payload, precomputed.

    `plans` are the fields that `broken_rule` checks. `money` is the name of the field with an amount; empty if there is
    none. `find_number` finds it, if it is certainly written as a JSON number. `defaults` are fields that are in the
    data even if they were not sent. `is_countable` is false if the data may have other colons than the text: a time may
    be sent in several forms.
    """

    plans: tuple[FieldPlan, ...]
    titles: tuple[str, ...]
    objects: tuple[str, ...]
    has_free_fields: bool
    money: str
    find_number: Callable[[bytes], Any]
    defaults: tuple[tuple[str, Any], ...]
    is_countable: bool


def broken_rule(plan: FieldPlan, value: Any) -> str | None:
    """Return why a new event must not have a value; None if it may.

    Args:
        plan: the field.
        value: as decoded without a type.
    """
    if isinstance(value, str):
        if plan.kind == "money" and not _is_json_number(value):
            return NOT_A_NUMBER
        if plan.is_title and is_blank(value):
            return "must not be blank"
    elif plan.kind == "nested" and value:
        for name, amount in _amounts(plan.name, value):
            if isinstance(amount, str) and not _is_json_number(amount):
                return f"{name} {NOT_A_NUMBER}"
    return None


def _amounts(field: str, value: Any) -> list[tuple[str, Any]]:
    """Return the names and the values of the amounts inside a field."""
    if field == "original":
        return [(name, value[name]) for name in original.AMOUNTS]
    tiers = value if field == "tiers" else [{"rates": value}]
    return [amount for tier in tiers for amount in tier["rates"].items()]


def joint_fault(event_type: EventType, data: EventData, stream_id: UUID | None) -> Fault | None:
    """Return the fault of an event whose fields are valid separately; stored events may have it.

    Args:
        event_type: the type of the event.
        data: its decoded data.
        stream_id: its stream, if it was sent.
    """
    if getattr(data, "price", None) is not None and event_type.category == "cost":
        return PRICE_SENT
    if isinstance(data, PricePublished) and stream_id not in (None, data.stream_id):
        return Fault("$.stream_id", f"the stream of this price is {data.stream_id}; leave `stream_id` out")
    if isinstance(data, JobRecorded) and data.lacks_error_message:
        return Fault("$.data.error_message", ERROR_MESSAGE_REQUIRED)
    return None


def breaks_rules(text: bytes, event: NewEvent, candidate: Candidate) -> bool:
    """Whether a decoded event breaks a rule.

    Args:
        text: the JSON text of the event.
        event: the decoded event.
        candidate: the same event, prepared.
    """
    rules = _RULES[type(event)]
    if rules.is_countable and _has_counted_members(text, event, candidate, rules):
        return rules.has_free_fields and _breaks_rules_inside(event.data, rules)
    sent = _any.decode(text)
    values = sent.get("data") or {}
    return repeats_member(text, sent) or any(broken_rule(plan, values.get(plan.name)) for plan in rules.plans)


def _has_counted_members(text: bytes, event: NewEvent, candidate: Candidate, rules: _Rules) -> bool:
    """Whether the text has exactly the colons of the decoded members and their values, and money is a JSON number.

    If so, no member is repeated, except inside an object: each repetition would add a colon.
    """
    if _BACKSLASH in text and b"\\u" in text:
        return False
    colons = text.count(b":") - candidate.data.count(":")
    if candidate.text is not None:
        colons -= candidate.text.count(":")
    for name, default in rules.defaults:
        colons += getattr(event.data, name) == default
    for value in (event.id, event.stream_id, event.expected_version, event.correlation_id, event.causation_id):
        if value is not None:
            colons -= 1
    if event.occurred_at is not None:
        colons -= 3  # A time has at least two.
    # `type` and `data` are left. An event without data may have no `data`.
    if candidate.data == "{}" and candidate.text is None and b'"data"' not in text:
        colons += 1
    if colons != 2 or getattr(event.data, "original", None) is not None:
        return False
    return not rules.money or rules.find_number(text) is not None or getattr(event.data, rules.money) is None


def _breaks_rules_inside(data: EventData, rules: _Rules) -> bool:
    """Whether a title is blank, or an object names a member twice, at any depth."""
    for name in rules.titles:
        if is_blank(getattr(data, name) or ""):
            return True
    for name in rules.objects:
        text = bytes(getattr(data, name))
        # Most objects are so small that this alone is the proof.
        if text.count(b'"') >= QUOTES_OF_TWO_NAMES and repeats_member(text, _any.decode(text)):
            return True
    return False


def _rules_of(payload: type[EventData]) -> _Rules:
    plans = plans_of(payload)
    money = [plan.name for plan in plans if plan.kind == "money"]
    titles = tuple(plan.name for plan in plans if plan.is_title)
    objects = tuple(plan.name for plan in plans if plan.kind == "object")
    has_names = any(plan.kind in ("object", "labels") for plan in plans)
    return _Rules(
        plans=tuple(plan for plan in plans if plan.kind in ("money", "nested") or plan.is_title),
        titles=titles,
        objects=objects,
        has_free_fields=bool(titles or objects),
        money=money[0] if money else "",
        find_number=_number_finder(money[0] if money else "", is_unique=not has_names),
        defaults=tuple((plan.name, plan.default) for plan in plans if plan.default not in (None, msgspec.UNSET)),
        is_countable=len(money) <= 1 and not any(plan.kind == "time" for plan in plans),
    )


def _number_finder(name: str, *, is_unique: bool) -> Callable[[bytes], Any]:
    """Return a function that finds a JSON number, or a string like one, as the value of a member.

    Args:
        name: the name of the member.
        is_unique: no other object of the text can have a member of this name.
    """
    quoted = f'"{name}"'.encode()
    # Possessive quantifiers (`*+`, `?+`) do not backtrack, which takes a third of the time.
    search = re.compile(quoted + rb':\s*+(?:"(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+"|[-0-9])').search
    return search if is_unique else lambda text: search(text) if text.count(quoted) == 1 else None


_RULES = {struct: _rules_of(event_type.payload) for struct, event_type in EVENT_TYPES.items()}
