"""Every event type by name: its struct, its category, its schema version, and who may send it."""

from typing import NamedTuple

import msgspec

from ledger.domain import campaign, content, cost, job
from ledger.domain.codec import EventData, decode_hook, merge
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


def _event_type(category: str, name: str, payload: type[EventData], transition: Transition) -> EventType:
    decoder = msgspec.json.Decoder(payload, dec_hook=decode_hook)
    return EventType(name, category, payload, transition, 1, name in cost.BY_SERVICE, decoder)


CATALOGUE: dict[str, EventType] = {
    name: _event_type(category, name, payload, transition)
    for category, events in (
        ("campaign", campaign.EVENTS),
        ("content", content.EVENTS),
        ("job", job.EVENTS),
        ("cost", cost.EVENTS),
    )
    for name, (payload, transition) in events.items()
}

CATEGORIES = ("campaign", "content", "job", "cost", "ledger")


class UnknownEventType(Exception):
    """The log holds an event type or schema version that this release does not know."""


def decode_stored(name: str, schema_version: int, data: str, free_text: str | None) -> EventData:
    """Read a stored event's payload.

    Raises:
        UnknownEventType: it was written by a newer release; upgrade before going on.
    """
    event_type = CATALOGUE.get(name)
    if event_type is None or schema_version != event_type.schema_version:
        raise UnknownEventType(f"{name} in schema version {schema_version}: upgrade this release to read it")
    body = data if free_text is None else merge(data.encode(), free_text.encode())
    return event_type.decoder.decode(body)
