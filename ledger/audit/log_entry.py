"""The entry of an event in the audit log: everything about it but its free text, in one fixed form.

One compact JSON object in UTF-8, every key present and in the order of `Entry`, null where empty. Auditors hash these
bytes: never change how they are written; a new form is a new `v`.
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

_Number = Annotated[int, msgspec.Meta(ge=1)]
# Not $: that also matches before a newline at the end.
_Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class EntryError(LedgerError, ValueError):
    """An event makes no entry, or these are not the bytes of one."""


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is hashed of an event; the fields are the keys, in order.

    `occurred_at` and `recorded_at` are RFC 3339 in UTC with microseconds; `data` is the bytes stored; `text_commitment`
    stands for the free text (see `commitment`), and stays when that is erased.
    """

    v: Literal[1]
    position: _Number
    category: str
    stream_id: UUID
    version: _Number
    id: UUID
    type: str
    schema_version: _Number
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


def entry_of(event: StoredEvent) -> bytes:
    """Write the entry of an event.

    Raises:
        EntryError: it would have more than 65,535 bytes.
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
        raise EntryError(f"the entry of event {event.position} has {len(entry)} bytes, {ENTRY_BYTES_MAX} at most")
    return entry


def parse_entry(entry: bytes) -> Entry:
    """Read an entry, which must be written exactly as `entry_of` writes it.

    Raises:
        EntryError: it is not.
    """
    if len(entry) > ENTRY_BYTES_MAX:
        raise EntryError(f"an entry has at most {ENTRY_BYTES_MAX} bytes, not {len(entry)}")
    try:
        # The data is kept raw, so nothing else would look at its text.
        entry.decode()
        parsed = _DECODER.decode(entry)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise EntryError(f"not an entry of the log: {error}") from None
    data = bytes(parsed.data)
    if not data.startswith(b"{"):
        raise EntryError("not an entry of the log: data is not an object")
    if (
        _ENCODER.encode(parsed) != entry
        or msgspec.json.format(data, indent=-1) != data
        or not _is_time(parsed.occurred_at)
        or not _is_time(parsed.recorded_at)
    ):
        raise EntryError("an entry of the log, but not written as the ledger writes it: its hash would be another")
    return parsed


def commitment(salt: bytes, text: bytes) -> str:
    """What stands in an entry for free text: the SHA-256 of salt and text, in hex. The salt keeps it from guessing."""
    return sha256(salt + text).hexdigest()


def _is_time(text: str) -> bool:
    try:
        return time_text(datetime.fromisoformat(text)) == text
    except (ValueError, OverflowError):
        return False
