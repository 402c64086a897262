"""Rules of new events: members named once, money written as JSON numbers, names that are not blank.

Stored events may break them. They are checked for every event that is appended, so most events take a shorter way: the
colons of the text are counted, and compared with those that the decoded event explains.
"""

import re
from typing import Any, NamedTuple

import msgspec

from ledger.domain.codec import EventData, FieldPlan, plans_of
from ledger.domain.event import Candidate
from ledger.domain.money import JSON_NUMBER
from ledger.log.json_faults import repeats_member
from ledger.log.new_event import EVENT_TYPES, NewEvent

_is_json_number = re.compile(JSON_NUMBER).fullmatch
_is_followed_by_number = re.compile(rf'\s*:\s*(?:[-0-9]|"{JSON_NUMBER}"|null)'.encode()).match
_BACKSLASH = ord("\\")
_any = msgspec.json.Decoder(float_hook=float)


class _Rules(NamedTuple):
    """What `breaks_rules` needs to know of a payload.

    `money` is the quoted name of the field with an amount; empty if there is none. `defaults` are fields that are in
    the data even if they were not sent. `is_plain` is true if the data has the colons of the text: there is no JSON
    object, and no time, which may be sent in several forms.
    """

    plans: tuple[FieldPlan, ...]
    money: bytes
    defaults: tuple[tuple[str, Any], ...]
    is_plain: bool


def broken_rule(plan: FieldPlan, value: Any) -> str | None:
    """Return why a new event must not have a value; None if it may.

    Args:
        plan: the field.
        value: as decoded without a type.
    """
    if isinstance(value, str):
        if plan.kind == "money" and not _is_json_number(value):
            return "must be written as a JSON number, such as 12 or 0.000125"
        if plan.is_title and value.isspace():
            return "must not be blank"
    return None


def breaks_rules(text: bytes, event: NewEvent, candidate: Candidate) -> bool:
    """Whether a decoded event breaks a rule.

    Args:
        text: the JSON text of the event.
        event: the decoded event.
        candidate: the same event, prepared.
    """
    rules = _RULES[type(event)]
    if (
        rules.is_plain
        and (_BACKSLASH not in text or b"\\u" not in text)
        and _is_plainly_valid(text, event, candidate, rules)
    ):
        return False
    sent = _any.decode(text)
    values = sent.get("data") or {}
    return repeats_member(text, sent) or any(broken_rule(plan, values.get(plan.name)) for plan in rules.plans)


def _is_plainly_valid(text: bytes, event: NewEvent, candidate: Candidate, rules: _Rules) -> bool:
    """Whether the text has as many colons as the members that were certainly sent, each once, and their values.

    If so, no member was named twice: it would have a colon more.
    """
    _, money, defaults, _ = rules
    colons = text.count(b":") - candidate.data.count(":")
    if candidate.text is not None:
        colons -= candidate.text.count(":")
    for name, default in defaults:
        colons += getattr(event.data, name) == default
    for value in (event.id, event.stream_id, event.expected_version, event.correlation_id, event.causation_id):
        if value is not None:
            colons -= 1
    if event.occurred_at is not None:
        colons -= 3  # A time has at least two.
    # `type` and `data` are left. An event without data may have no `data`.
    if colons != 2 or (candidate.data == "{}" and candidate.text is None and b'"data"' not in text):
        return False
    return not money or _is_followed_by_number(text, text.find(money) + len(money)) is not None


def _rules_of(payload: type[EventData]) -> _Rules:
    plans = plans_of(payload)
    money = [plan.name for plan in plans if plan.kind == "money"]
    return _Rules(
        tuple(plan for plan in plans if plan.kind == "money" or plan.is_title),
        f'"{money[0]}"'.encode() if money else b"",
        tuple((plan.name, plan.default) for plan in plans if plan.default not in (None, msgspec.UNSET)),
        len(money) <= 1 and not any(plan.is_title or plan.kind in ("object", "time") for plan in plans),
    )


_RULES = {struct: _rules_of(event_type.payload) for struct, event_type in EVENT_TYPES.items()}
