"""Structs of the events that clients send: the envelope, and one struct for each event type."""

import re
from typing import Annotated, Any
from uuid import UUID

import msgspec

from ledger.domain.catalogue import CATALOGUE
from ledger.domain.codec import EventData, decode_hook
from ledger.domain.fields import Instant


class NewEvent(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    """The envelope of an event in a request; `data` depends on the type."""

    id: UUID | None = None
    stream_id: UUID | None = None
    expected_version: Annotated[int, msgspec.Meta(ge=0, le=2**62)] | None = None
    occurred_at: Instant | None = None
    correlation_id: UUID | None = None
    causation_id: UUID | None = None
    data: Any


def _event_struct(name: str, payload: type[EventData]) -> type[NewEvent]:
    # "data" may be absent if none of its fields is required.
    required = any(field.required for field in msgspec.structs.fields(payload))
    data: Any = ("data", payload) if required else ("data", payload, msgspec.field(default_factory=payload))
    struct = msgspec.defstruct(
        "".join(part.title() for part in re.split(r"[._]", name)) + "Event",
        [data],
        bases=(NewEvent,),
        tag=name,
        kw_only=True,
        forbid_unknown_fields=True,
        namespace={"__doc__": payload.__doc__},
    )
    assert issubclass(struct, NewEvent)
    return struct


EVENT_STRUCTS = {name: _event_struct(name, kind.payload) for name, kind in CATALOGUE.items() if not kind.by_service}
EVENT_TYPES = {struct: CATALOGUE[name] for name, struct in EVENT_STRUCTS.items()}

AnyEvent: Any = None
for _struct in EVENT_STRUCTS.values():
    AnyEvent = _struct if AnyEvent is None else AnyEvent | _struct

decoder: msgspec.json.Decoder[NewEvent] = msgspec.json.Decoder(AnyEvent, dec_hook=decode_hook)
