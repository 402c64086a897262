"""Every fault of an event that cannot be appended: the path of each wrong field, and a message.

Decoding stops at the first fault, so an event that is refused is read a second time here, field by field.
"""

import re
from collections.abc import Iterator
from functools import cache
from itertools import islice
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from ledger.domain.catalogue import CATALOGUE
from ledger.domain.codec import EventData, FieldPlan, InvalidFieldError, check_field, decode_hook, plans_of, utc
from ledger.domain.event_type import EventType
from ledger.log.json_faults import Fault, faulty_texts, members_of
from ledger.log.new_event import EVENT_STRUCTS, NewEvent
from ledger.log.new_event_rules import PRICE_SENT, broken_rule, joint_fault

FAULTS_MAX = 20
"""The most faults named for each event."""


class _Field(NamedTuple):
    """A field that an event may have; `plan` is None if it belongs to the envelope."""

    name: str
    decoder: msgspec.json.Decoder[Any]
    is_required: bool
    plan: FieldPlan | None


def faults_of(text: str) -> list[Fault]:
    """Return the faults of an event, at most `FAULTS_MAX`; its text is JSON, and not nested too deeply."""
    faults = list(islice(faulty_texts(text), FAULTS_MAX))
    inside = tuple(f"{fault.path}." for fault in faults)
    for path, message in _event_faults(text):
        # A value that contains a faulty text cannot be decoded either; only the text is reported.
        if not any(known.startswith((f"{path}.", f"{path}[")) for known in inside):
            faults.append(Fault(path, message))
    return faults[:FAULTS_MAX]


def _event_faults(text: str) -> Iterator[Fault]:
    if (problem := _problem(_any_object, text)) is not None:
        yield Fault("$", problem)
        return
    members = members_of(text)
    data = members.pop("data", None)
    name, problem = _type_name(members.pop("type", None))
    if problem is not None:
        yield Fault("$.type", problem)
    yield from _field_faults("$", members, _envelope())
    if problem is None:
        event_type = CATALOGUE[name]
        if not (event_type.opens_stream or event_type.names_stream) and members.get("stream_id", "null") == "null":
            message = f"{event_type.name} continues an existing stream: set stream_id to the id of that stream"
            yield Fault("$.stream_id", message)
        yield from _data_faults(event_type, data, members.get("stream_id", "null"))


def _type_name(text: str | None) -> tuple[str, str | None]:
    """Return the name of an event's type, and why clients may not send it; None if they may."""
    if text is None:
        return "", "Object missing required field `type`"
    if (problem := _problem(_string, text)) is not None:
        return "", problem
    name = _string.decode(text)
    if name in EVENT_STRUCTS:
        return name, None
    reason = "can only be appended by the service" if name in CATALOGUE else "is not an event type of this ledger"
    return name, f"'{name}' {reason}"


def _data_faults(event_type: EventType, data: str | None, stream_id: str) -> Iterator[Fault]:
    """Yield the faults of an event's data.

    Args:
        event_type: its type.
        data: the JSON text of the data, if there is one.
        stream_id: the JSON text of the event's stream.
    """
    fields = _data_fields(event_type.payload)
    if data is None:
        if any(field.is_required for field in fields):
            yield Fault("$.data", "Object missing required field `data`")
    elif (problem := _problem(_any_object, data)) is not None:
        yield Fault("$.data", problem)
    elif found := list(_field_faults("$.data", members_of(data), fields)):
        yield from found
        if event_type.category == "cost" and members_of(data).get("price", "null") != "null":
            yield PRICE_SENT
    else:
        yield from _joint_faults(event_type, data, stream_id)


def _joint_faults(event_type: EventType, data: str, stream_id: str) -> Iterator[Fault]:
    """Yield the fault of fields that are valid separately, but not together; the arguments are those of the data."""
    # A faulty stream id is named by itself.
    stream = None if _problem(_stream_id, stream_id) else _stream_id.decode(stream_id)
    try:
        fault = joint_fault(event_type, event_type.decoder.decode(data), stream)
    except msgspec.ValidationError as error:
        field = error.__cause__.field if isinstance(error.__cause__, InvalidFieldError) else ""
        fault = Fault(f"$.data.{field}" if field else "$.data", str(error))
    if fault is not None:
        yield fault


def _field_faults(path: str, members: dict[str, str], fields: tuple[_Field, ...]) -> Iterator[Fault]:
    """Yield the faults of an object's members, each checked separately."""
    by_name = {field.name: field for field in fields}
    for name, text in members.items():
        field = by_name.get(name)
        problem = f"Object contains unknown field `{name}`" if field is None else _problem(field.decoder, text, field)
        if problem is not None:
            message, inside = _split_path(problem)
            yield Fault(f"{path}.{name}{inside}", message)
    for field in fields:
        if field.is_required and field.name not in members:
            yield Fault(f"{path}.{field.name}", f"Object missing required field `{field.name}`")


def _problem(decoder: "msgspec.json.Decoder[Any]", text: str, field: _Field | None = None) -> str | None:
    """Return why a JSON text is not a valid value of a field; None if it is."""
    try:
        value = decoder.decode(text)
        if field is not None and field.plan is not None:
            check_field(field.plan, value)
            return broken_rule(field.plan, _any.decode(text))
        if field is not None and field.name == "occurred_at" and value is not None:
            utc("occurred_at", value)
    except (msgspec.DecodeError, InvalidFieldError) as error:
        return str(error)
    return None


def _split_path(problem: str) -> tuple[str, str]:
    """Split the message of msgspec about a nested value into the message itself and the path inside the field."""
    found = _nested(problem)
    return (found["message"], found["path"]) if found else (problem, "")


_nested = re.compile(r"(?P<message>.*) - at `\$(?P<path>[.][a-z0-9_]+)`", re.DOTALL).fullmatch
_any = msgspec.json.Decoder(float_hook=str)
_any_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_string = msgspec.json.Decoder(str)
_stream_id = msgspec.json.Decoder(UUID | None)


@cache
def _data_fields(payload: type[EventData]) -> tuple[_Field, ...]:
    fields = msgspec.structs.fields(payload)
    return tuple(_field(field, plan) for field, plan in zip(fields, plans_of(payload), strict=True))


@cache
def _envelope() -> tuple[_Field, ...]:
    return tuple(_field(field, None) for field in msgspec.structs.fields(NewEvent) if field.name != "data")


def _field(field: msgspec.structs.FieldInfo, plan: FieldPlan | None) -> _Field:
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(field.type, dec_hook=decode_hook)
    return _Field(field.encode_name, decoder, field.required, plan)
