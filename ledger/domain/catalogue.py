"""Every event type by name: its struct, its category, its schema version, and who may send it."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import msgspec

from ledger.domain import campaign, content, cost, job, ledger
from ledger.domain.codec import EventData, FieldPlan, decode_hook, merge, plans_of
from ledger.domain.lifecycle import Transition


class EventType(NamedTuple):
    """One row of the catalogue."""

    name: str
    category: str
    payload: type[EventData]
    transition: Transition
    schema_version: int
    by_service: bool
    decoder: msgspec.json.Decoder[EventData]


Upcaster = Callable[[dict[str, msgspec.Raw]], dict[str, msgspec.Raw]]
"""Turns the fields of an old schema version, each as raw JSON, into those of the next."""

SCHEMA_VERSIONS: dict[str, int] = {}
"""The schema version that events of a type are written in, where it is no longer 1."""

UPCASTERS: dict[tuple[str, int], Upcaster] = {}
"""By type and old version: `("cost.recorded", 1)` reads what version 1 wrote as version 2 would have written it."""


def _event_type(category: str, name: str, payload: type[EventData], transition: Transition) -> EventType:
    decoder = msgspec.json.Decoder(payload, dec_hook=decode_hook)
    by_service = category == "ledger" or name in cost.BY_SERVICE
    return EventType(name, category, payload, transition, SCHEMA_VERSIONS.get(name, 1), by_service, decoder)


CATALOGUE: dict[str, EventType] = {
    name: _event_type(category, name, payload, transition)
    for category, events in (
        ("campaign", campaign.EVENTS),
        ("content", content.EVENTS),
        ("job", job.EVENTS),
        ("cost", cost.EVENTS),
        ("ledger", ledger.EVENTS),
    )
    for name, (payload, transition) in events.items()
}

CATEGORIES = ("campaign", "content", "job", "cost", "ledger")


class UnknownEventType(Exception):
    """The log holds an event type or schema version that this release does not know."""


def decode_stored(name: str, schema_version: int, data: str, free_text: str | None) -> EventData:
    """Read a stored event's payload; free text that was erased reads as "" or {} where it is required.

    Raises:
        UnknownEventType: it was written by a newer release; upgrade before going on.
    """
    event_type = CATALOGUE.get(name)
    if event_type is None or schema_version > event_type.schema_version:
        raise UnknownEventType(f"{name} in schema version {schema_version}: upgrade this release to read it")
    if schema_version < event_type.schema_version:
        data, free_text = _upcast(event_type, schema_version, data, free_text)
    if free_text is not None:
        return event_type.decoder.decode(merge(data.encode(), free_text.encode()))
    required = _required_texts(event_type.payload)
    if not required:
        return event_type.decoder.decode(data)
    # It can only be absent because it was erased: stand-ins that pass the checks, and then the empty values.
    stand_ins = {plan.name: {} if plan.kind == "object" else "erased" for plan in required}
    payload = event_type.decoder.decode(merge(data.encode(), msgspec.json.encode(stand_ins)))
    for plan in required:
        if plan.kind == "text":
            msgspec.structs.force_setattr(payload, plan.name, "")
    return payload


def _upcast(event_type: EventType, version: int, data: str, free_text: str | None) -> tuple[str, str | None]:
    """Bring stored fields up to the version of this release, a version at a time; data and text apart again."""
    fields = _fields.decode(merge(data.encode(), free_text.encode() if free_text is not None else None))
    for old in range(version, event_type.schema_version):
        fields = UPCASTERS[event_type.name, old](fields)
    texts = {plan.name for plan in plans_of(event_type.payload) if plan.is_free_text}
    free = {name: value for name, value in fields.items() if name in texts}
    rest = {name: value for name, value in fields.items() if name not in texts}
    return msgspec.json.encode(rest).decode(), msgspec.json.encode(free).decode() if free else None


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


@cache
def _required_texts(payload: type[EventData]) -> tuple[FieldPlan, ...]:
    return tuple(plan for plan in plans_of(payload) if plan.is_free_text and plan.required)
