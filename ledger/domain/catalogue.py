"""`CATALOGUE` of event types by name; decodes stored events of every schema version."""

from collections.abc import Callable, Sequence
from functools import cache

import msgspec

from ledger.domain import campaign, content, cost, job, ledger_events, price
from ledger.domain.codec import EventData, FieldPlan, dump, merge, plans_of
from ledger.domain.errors import LedgerError
from ledger.domain.event_type import EventType

CATALOGUE: dict[str, EventType] = {
    event_type.name: event_type
    for noun in (campaign, content, job, cost, price, ledger_events)
    for event_type in noun.EVENTS
}

_BY_PAYLOAD = {event_type.payload: name for name, event_type in CATALOGUE.items()}


def type_of(payload: type[EventData]) -> EventType:
    """Return the event type whose data has this struct."""
    return CATALOGUE[_BY_PAYLOAD[payload]]


def names_of(matches: Callable[[EventType], bool]) -> tuple[str, ...]:
    """Return the names of the event types that match."""
    return tuple(name for name, event_type in CATALOGUE.items() if matches(event_type))


def sql_list(matches: Callable[[EventType], bool]) -> str:
    """Return the names of the event types that match for `type IN (...)` in SQL, such as `'job.queued'`."""
    names = names_of(matches)
    assert names, "SQL has no empty list"
    return ", ".join(f"'{name}'" for name in names)


class UnknownEventTypeError(LedgerError):
    """The log holds an event type or schema version that this release does not know."""


def decode_stored(name: str, schema_version: int, data: str, free_text: str | None) -> EventData:
    """Decode the payload of a stored event.

    Args:
        name: The event type.
        schema_version: The version in which the event was written.
        data: The stored data as JSON.
        free_text: The stored free text as JSON; None if there is none, or if it was erased.

    Returns:
        The payload in the newest version; required free text that was erased is "" or {}.

    Raises:
        UnknownEventTypeError: The event was written by a newer release.
    """
    event_type = _known_type(name, schema_version)
    stored = _stored_fields(data, free_text)
    absent = _required_texts(event_type.payload) if free_text is None else ()
    upcasters = [older.upcaster for older in event_type.older[schema_version - 1 :] if older.upcaster is not None]
    if upcasters:
        fields = _fields.decode(stored)
        for upcaster in upcasters:
            fields = upcaster(fields)
        stored = msgspec.json.encode(fields)
        absent = tuple(plan for plan in absent if plan.name not in fields)
    return _decode(event_type.decoder, stored, absent)


def decode_as_written(name: str, schema_version: int, data: str, free_text: str | None) -> EventData:
    """Decode a stored event into the struct of the version in which it was written; otherwise as `decode_stored`."""
    event_type = _known_type(name, schema_version)
    written = event_type if schema_version == event_type.schema_version else event_type.older[schema_version - 1]
    absent = _required_texts(written.payload) if free_text is None else ()
    return _decode(written.decoder, _stored_fields(data, free_text), absent)


def _known_type(name: str, schema_version: int) -> EventType:
    event_type = CATALOGUE.get(name)
    if event_type is None or not 1 <= schema_version <= event_type.schema_version:
        raise UnknownEventTypeError(f"{name} in schema version {schema_version}: upgrade this release to read it")
    return event_type


def _stored_fields(data: str, free_text: str | None) -> bytes:
    return merge(data.encode(), free_text.encode() if free_text is not None else None)


def _decode(decoder: msgspec.json.Decoder[EventData], stored: bytes, absent: Sequence[FieldPlan]) -> EventData:
    if not absent:
        return decoder.decode(stored)
    # They are absent only because they were erased: decode placeholders that pass the checks, then empty the texts.
    placeholders = {plan.name: {} if plan.kind == "object" else "erased" for plan in absent}
    payload = decoder.decode(merge(stored, msgspec.json.encode(placeholders)))
    for plan in absent:
        if plan.kind == "text":
            msgspec.structs.force_setattr(payload, plan.name, "")
    return payload


def to_newest_version(name: str, schema_version: int, data: str, free_text: str | None) -> tuple[str, str | None]:
    """Convert a stored event to the newest schema version.

    Args:
        name: The event type.
        schema_version: The version in which the event was written.
        data: The stored data as JSON.
        free_text: The stored free text as JSON; None if there is none, or if it was erased.

    Returns:
        Its data and free text as this release would have written them.
    """
    event_type = CATALOGUE.get(name)
    if event_type is None or schema_version >= event_type.schema_version:
        return data, free_text
    written, text = dump(decode_stored(name, schema_version, data, free_text))
    return written.decode(), text.decode() if text is not None else None


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


@cache
def _required_texts(payload: type[EventData]) -> tuple[FieldPlan, ...]:
    return tuple(plan for plan in plans_of(payload) if plan.is_free_text and plan.required)
