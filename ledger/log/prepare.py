"""Prepare an event before the head lock: ids, canonical JSON, salted text commitment."""

import hashlib
import os
from datetime import datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from ledger.domain.codec import EventData, dump
from ledger.domain.event import Candidate
from ledger.domain.event_type import EventType

SALT_BYTES = 16


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
        event_type: the type of the event.
        payload: the payload, with its free text.
        actor: the name of the caller.
        event_id: a new UUIDv7 when None.
        stream_id: the stream to append to; when None, the event opens a stream whose id is the event id, or its data
            decides the stream.
        expected_version: the version that the stream must have; None: any.
        occurred_at: when it happened; `recorded_at` when None.
        correlation_id: passed on as it is.
        causation_id: passed on as it is.
        allowed_campaign_ids: the campaigns that the caller is restricted to; None: no restriction.

    Returns:
        the candidate, with a new random salt if the payload has free text.
    """
    event_id = event_id or uuid7()
    if event_type.names_stream:
        stream_id = stream_id or payload.stream_id  # type: ignore[attr-defined]
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
        schema_version=event_type.schema_version,
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
        needs_price=event_type.amount_field is not None and _needs_price(event_type.amount_field, payload),
    )


def _needs_price(amount_field: str, payload: EventData) -> bool:
    return getattr(payload, amount_field) is None and getattr(payload, "usage", None) is not None
