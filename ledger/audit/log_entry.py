"""The log entry of an event: what the transparency log hashes, all but the event's free text.

An entry is one compact JSON object in UTF-8. Every key of `Entry` is present, in order; empty values are null. Auditors
hash these bytes: never change how an entry is written. A new format needs a new `v`.
"""

from datetime import datetime
from hashlib import sha256
from typing import Annotated, Literal
from uuid import UUID

import msgspec

from ledger.audit.tiles import ENTRY_BYTES_MAX
from ledger.domain.codec import time_text
from ledger.domain.errors import LedgerError
from ledger.log.read import StoredEvent

_PositiveInt = Annotated[int, msgspec.Meta(ge=1)]
# \Z, since $ also matches before a newline at the end.
_Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class EntryError(LedgerError, ValueError):
    """The event is too large for an entry, or the bytes are not an entry."""


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The hashed part of an event; the fields are the JSON keys, in order.

    `occurred_at` and `recorded_at` are RFC 3339 in UTC with microseconds. `data` holds the stored bytes.
    `text_commitment` represents the free text (see `commitment`) and remains when the text is erased.
    """

    v: Literal[1]
    position: _PositiveInt
    category: str
    stream_id: UUID
    version: _PositiveInt
    id: UUID
    type: str
    schema_version: _PositiveInt
    occurred_at: str
    recorded_at: str
    actor: str
    campaign_id: UUID | None
    agent_job_id: UUID | None
    correlation_id: UUID | None
    causation_id: UUID | None
    data: msgspec.Raw
    text_commitment: _Digest | None


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Entry)


def encode_entry(event: StoredEvent) -> bytes:
    """Return the entry of an event.

    Raises:
        EntryError: the entry would be longer than 65,535 bytes.
    """
    entry = _ENCODER.encode(
        Entry(
            v=1,
            position=event.position,
            category=event.category,
            stream_id=event.stream_id,
            version=event.version,
            id=event.id,
            type=event.type,
            schema_version=event.schema_version,
            occurred_at=time_text(event.occurred_at),
            recorded_at=time_text(event.recorded_at),
            actor=event.actor,
            campaign_id=event.campaign_id,
            agent_job_id=event.agent_job_id,
            correlation_id=event.correlation_id,
            causation_id=event.causation_id,
            data=msgspec.Raw(event.data),
            text_commitment=event.text_commitment,
        )
    )
    if len(entry) > ENTRY_BYTES_MAX:
        raise EntryError(
            f"the entry of event {event.position} has {len(entry)} bytes; at most {ENTRY_BYTES_MAX} are allowed"
        )
    return entry


def parse_entry(entry: bytes) -> Entry:
    """Parse an entry, which must be byte for byte what `encode_entry` writes.

    Raises:
        EntryError: it is not.
    """
    if len(entry) > ENTRY_BYTES_MAX:
        raise EntryError(f"an entry must have at most {ENTRY_BYTES_MAX} bytes, not {len(entry)}")
    try:
        # The decoder leaves `data` raw, so only this line checks that it is UTF-8.
        entry.decode()
        parsed = _DECODER.decode(entry)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise EntryError(f"not a log entry: {error}") from None
    data = bytes(parsed.data)
    if not data.startswith(b"{"):
        raise EntryError("not a log entry: data is not an object")
    if (
        _ENCODER.encode(parsed) != entry
        or msgspec.json.format(data, indent=-1) != data
        or not _is_time(parsed.occurred_at)
        or not _is_time(parsed.recorded_at)
    ):
        raise EntryError("a log entry, but not in the form in which the ledger writes it: its hash would differ")
    return parsed


def commitment(salt: bytes, text: bytes) -> str:
    """Return the commitment to a free text: SHA-256 of salt and text, in hex. The salt prevents guessing the text."""
    return sha256(salt + text).hexdigest()


def _is_time(text: str) -> bool:
    try:
        return time_text(datetime.fromisoformat(text)) == text
    except (ValueError, OverflowError):
        return False
