"""Rules of new events: members named once, money written as JSON numbers, names that are not blank.

Stored events may break them. They are checked for every event that is appended, so most events take a shorter way: the
colons of the text are counted, and compared with those that the decoded event explains.
"""

import re
from functools import cache
from typing import Any, NamedTuple

import msgspec

from ledger.domain.codec import EventData, FieldPlan, plans_of
from ledger.domain.event import Candidate
from ledger.domain.money import JSON_NUMBER
from ledger.log.json_faults import repeats_member
from ledger.log.new_event import NewEvent

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
    payload: type[EventData] = type(event.data)
    rules = _rules_of(payload)
    if (
        rules.is_plain
        and (_BACKSLASH not in text or b"\\u" not in text)
        and text.count(b":") == _explained_colons(event, candidate, rules)
        and (not rules.money or _is_followed_by_number(text, text.find(rules.money) + len(rules.money)))
    ):
        return False
    sent = _any.decode(text)
    values = sent.get("data") or {}
    return repeats_member(text, sent) or any(broken_rule(plan, values.get(plan.name)) for plan in rules.plans)


def _explained_colons(event: NewEvent, candidate: Candidate, rules: _Rules) -> int:
    """Count the members that were certainly sent, each once, and the colons in their values.

    If the text has as many, every member was named once: a second one would have a colon more.
    """
    colons = candidate.data.count(":") + 1
    if candidate.text is not None:
        colons += candidate.text.count(":")
    for name, default in rules.defaults:
        colons -= getattr(event.data, name) == default
    if colons > 1:
        colons += 1  # `data` itself.
    # A time has the form 00:00:00.
    return (
        colons
        + (event.id is not None)
        + (event.stream_id is not None)
        + (event.expected_version is not None)
        + (event.correlation_id is not None)
        + (event.causation_id is not None)
        + (3 if event.occurred_at is not None else 0)
    )


@cache
def _rules_of(payload: type[EventData]) -> _Rules:
    plans = plans_of(payload)
    money = [plan.name for plan in plans if plan.kind == "money"]
    return _Rules(
        tuple(plan for plan in plans if plan.kind == "money" or plan.is_title),
        f'"{money[0]}"'.encode() if money else b"",
        tuple((plan.name, plan.default) for plan in plans if plan.default not in (None, msgspec.UNSET)),
        len(money) <= 1 and not any(plan.is_title or plan.kind in ("object", "time") for plan in plans),
    )
