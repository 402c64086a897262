"""Everything that can be done to an event before the lock: its ids, its canonical bytes, the seal of its free text."""

import hashlib
import os
from datetime import datetime
from uuid import UUID, uuid5

from uuid_utils.compat import uuid7

from ledger.domain.codec import EventData, dump
from ledger.domain.event import Candidate
from ledger.domain.event_type import EventType

SALT_BYTES = 16

_IDEMPOTENCY = UUID("6f2a3a3e-5c0e-5b64-9f0c-2f0d6a1f6c11")
"""Namespace of ids made from an Idempotency-Key; never change it: retried requests must find their events."""


def id_for_key(actor: str, key: str, index: int) -> UUID:
    """The id of a request's event that came without one but with an Idempotency-Key."""
    return uuid5(_IDEMPOTENCY, f"{actor}\n{key}\n{index}")


def prepare(
    event_type: EventType,
    payload: EventData,
    *,
    actor: str,
    event_id: UUID | None = None,
    stream_id: UUID | None = None,
    expected_version: int | None = None,
    occurred_at: datetime | None = None,
    correlation_id: UUID | None = None,
    causation_id: UUID | None = None,
    allowed_campaign_ids: frozenset[UUID] | None = None,
) -> Candidate:
    """Make a candidate for the log.

    Args:
        event_id: UUIDv7 where None.
        stream_id: the event's own id where None, which opens a stream of its own.
        allowed_campaign_ids: the campaigns that the sender may touch; any where None.
    """
    event_id = event_id or uuid7()
    data, text = dump(payload)
    salt = commitment = None
    if text is not None:
        salt = os.urandom(SALT_BYTES)
        commitment = hashlib.sha256(salt + text).hexdigest()
    return Candidate(
        event_type=event_type,
        stream_id=stream_id or event_id,
        id=event_id,
        payload=payload,
        data=data.decode(),
        actor=actor,
        text=text.decode() if text is not None else None,
        text_salt=salt,
        text_commitment=commitment,
        expected_version=expected_version,
        occurred_at=occurred_at,
        correlation_id=correlation_id,
        causation_id=causation_id,
        allowed_campaign_ids=allowed_campaign_ids,
    )
