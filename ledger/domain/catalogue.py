"""Every event type by name: its struct, its category, its schema version, and who may send it."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import msgspec

from ledger.domain import campaign, content, cost, job, ledger_events
from ledger.domain.codec import EventData, FieldPlan, decode_hook, dump, merge, plans_of
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
"""Turns the fields of an old schema version, each as raw JSON, into those of the next.

Data and free text come as one. Of an event whose text was erased the free texts are not there.
"""

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
        ("ledger", ledger_events.EVENTS),
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
    stored = merge(data.encode(), free_text.encode() if free_text is not None else None)
    absent = _required_texts(event_type.payload) if free_text is None else ()
    if schema_version < event_type.schema_version:
        fields = _upcast(event_type, schema_version, stored)
        stored = msgspec.json.encode(fields)
        absent = tuple(plan for plan in absent if plan.name not in fields)
    if not absent:
        return event_type.decoder.decode(stored)
    # They can only be absent because they were erased: stand-ins that pass the checks, and then the empty values.
    stand_ins = {plan.name: {} if plan.kind == "object" else "erased" for plan in absent}
    payload = event_type.decoder.decode(merge(stored, msgspec.json.encode(stand_ins)))
    for plan in absent:
        if plan.kind == "text":
            msgspec.structs.force_setattr(payload, plan.name, "")
    return payload


def as_written_today(name: str, schema_version: int, data: str, free_text: str | None) -> tuple[str, str | None]:
    """The data and free text of a stored event as this release would have written them."""
    event_type = CATALOGUE.get(name)
    if event_type is None or schema_version >= event_type.schema_version:
        return data, free_text
    written, text = dump(decode_stored(name, schema_version, data, free_text))
    return written.decode(), text.decode() if text is not None else None


def _upcast(event_type: EventType, version: int, stored: bytes) -> dict[str, msgspec.Raw]:
    """Bring stored fields up to the version of this release, a version at a time."""
    fields = _fields.decode(stored)
    for old in range(version, event_type.schema_version):
        fields = UPCASTERS[event_type.name, old](fields)
    return fields


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


@cache
def _required_texts(payload: type[EventData]) -> tuple[FieldPlan, ...]:
    return tuple(plan for plan in plans_of(payload) if plan.is_free_text and plan.required)
