"""Decode a request body into candidate events, at most 5,000 and 16 MiB: split, validate, prepare."""

import json
import re
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec

from ledger.domain.catalogue import CATALOGUE
from ledger.domain.codec import EventData, Instant, InvalidFieldError, decode_hook, utc
from ledger.domain.errors import InvalidEvent, Malformed, TooLarge
from ledger.domain.event import Candidate
from ledger.domain.json_text import check_text
from ledger.log.prepare import id_for_key, prepare

REQUEST_EVENTS_MAX = 5_000

BODY_BYTES_MAX = 16 * 1024 * 1024
BODY_TOO_LARGE = f"the body is larger than {BODY_BYTES_MAX // 1024**2} MiB; split it into several requests"

COMMAS_MAX = 40 * REQUEST_EVENTS_MAX
"""Typical requests have fewer commas. If there are more, the elements of an array are counted before it is split."""


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
_EVENT_TYPES = {struct: CATALOGUE[name] for name, struct in EVENT_STRUCTS.items()}

AnyEvent: Any = None
for _struct in EVENT_STRUCTS.values():
    AnyEvent = _struct if AnyEvent is None else AnyEvent | _struct

_decoder: msgspec.json.Decoder[NewEvent] = msgspec.json.Decoder(AnyEvent, dec_hook=decode_hook)
_SPACE = re.compile(r"[ \t\r\n]*")
_array = msgspec.json.Decoder(list[msgspec.Raw])


def split_body(body: bytes, *, ndjson: bool) -> tuple[list[bytes], bool]:
    """Split a request body into the JSON texts of its events.

    Returns:
        the texts, and whether the body is a batch: an array or NDJSON.

    Raises:
        Malformed: the body is not UTF-8, not JSON, nested too deeply, or empty.
        TooLarge: the body has more than 5,000 events.
    """
    try:
        if not body.isascii():
            body.decode()
        start = body.lstrip()[:1]
        if ndjson:
            events = [line for line in body.split(b"\n") if line and not line.isspace()]
        elif start == b"[":
            if body.count(b",") > COMMAS_MAX:
                _require_few_elements(body)
            events = [bytes(raw) for raw in _array.decode(body)]
        else:
            events = [body] if start else []
    except UnicodeDecodeError as error:
        raise Malformed(f"the body is not valid UTF-8 at byte {error.start}") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise Malformed(_json_problem(error)) from None
    if not events:
        raise Malformed("the body contains no event")
    if len(events) > REQUEST_EVENTS_MAX:
        raise TooLarge(f"{len(events):,} events in one request; send at most {REQUEST_EVENTS_MAX:,}")
    return events, ndjson or start == b"["


def _require_few_elements(body: bytes) -> None:
    """Refuse an array of more than 5,000 elements without decoding them all: 16 MiB can hold 8 million."""
    text = body.decode()
    scan = json.JSONDecoder().raw_decode
    index = text.index("[") + 1
    for _ in range(REQUEST_EVENTS_MAX):
        try:
            _, index = scan(text, _SPACE.match(text, index).end())  # type: ignore[union-attr]
        except ValueError:
            return  # Not JSON: splitting the body raises the error with a better message.
        index = _SPACE.match(text, index).end()  # type: ignore[union-attr]
        if text[index : index + 1] != ",":
            return
        index += 1
    raise TooLarge(f"more than {REQUEST_EVENTS_MAX:,} events in one request; send at most {REQUEST_EVENTS_MAX:,}")


def read_candidate(
    body: bytes,
    index: int,
    actor: str,
    idempotency_key: str | None,
    allowed_campaign_ids: frozenset[UUID] | None = None,
) -> Candidate:
    """Decode one event and prepare it for the log.

    Args:
        body: the JSON text of the event.
        index: the index of the event in its request, for errors and for ids derived from the key.
        actor: the name of the caller.
        idempotency_key: from which an event id is derived if the event has none.
        allowed_campaign_ids: the campaigns that the caller is restricted to; None: no restriction.

    Returns:
        the candidate.

    Raises:
        Malformed: the text is not JSON.
        InvalidEvent: the event does not match the schema of its type.
    """
    try:
        check_text(body)
        event = _decoder.decode(body)
        occurred_at = _in_utc(event.occurred_at)
    except (msgspec.ValidationError, InvalidFieldError) as error:
        raise InvalidEvent([_describe(error, index)]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(_json_problem(error, index)) from None
    event_type = _EVENT_TYPES[type(event)]
    if event.stream_id is None and not event_type.opens_stream:
        message = f"{event_type.name} continues an existing stream: set stream_id to the id of that stream"
        raise InvalidEvent([{"index": index, "path": "$.stream_id", "message": message}])
    event_id = event.id
    if event_id is None and idempotency_key is not None:
        event_id = id_for_key(actor, idempotency_key, index)
    return prepare(
        event_type,
        event.data,
        actor=actor,
        event_id=event_id,
        stream_id=event.stream_id,
        expected_version=event.expected_version,
        occurred_at=occurred_at,
        correlation_id=event.correlation_id,
        causation_id=event.causation_id,
        allowed_campaign_ids=allowed_campaign_ids,
    )


def _in_utc(occurred_at: datetime | None) -> datetime | None:
    return utc("occurred_at", occurred_at) if occurred_at is not None else None


def _json_problem(error: Exception, index: int | None = None) -> str:
    prefix = f"event {index}: " if index else ""
    if isinstance(error, RecursionError):
        return f"{prefix}the JSON is nested too deeply; at most 100 levels are allowed"
    return f"{prefix}{error}"


def _describe(error: Exception, index: int) -> dict[str, Any]:
    """Return an entry of `errors`: the event's index, the path of the invalid value and a message."""
    message, path = str(error), "$"
    if match := re.fullmatch(r"(.*) - at `(.*)`", message, re.DOTALL):
        message, path = match[1], match[2]
    cause = error if isinstance(error, InvalidFieldError) else error.__cause__
    if isinstance(cause, InvalidFieldError) and cause.field:
        path = f"{path}.{cause.field}"
    elif match := re.search(r"(?:unknown|required) field `(.*)`", message):
        path = f"{path}.{match[1]}"
    elif path == "$.type" and (match := re.fullmatch(r"Invalid value '(.*)'", message, re.DOTALL)):
        by_service = match[1] in CATALOGUE
        reason = "can only be appended by the service" if by_service else "is not an event type of this ledger"
        message = f"'{match[1]}' {reason}"
    return {"index": index, "path": path, "message": message}
