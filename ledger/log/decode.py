"""Decode the JSON text of an event into a candidate: read it strictly, and prepare it for the log."""

from collections.abc import Callable
from uuid import UUID

import msgspec

from ledger.domain.codec import InvalidFieldError, utc
from ledger.domain.errors import InvalidEvent, LedgerError, Malformed
from ledger.domain.event import Candidate
from ledger.domain.json_text import check_text, check_values
from ledger.log.event_faults import faults_of
from ledger.log.json_faults import Fault, shortened
from ledger.log.new_event import EVENT_TYPES, decoder
from ledger.log.new_event_rules import breaks_rules, joint_fault
from ledger.log.prepare import prepare
from ledger.log.request_body import json_problem

EXPLAINED_BYTES_MAX = 64 * 1024
"""Of a larger event that is refused, only the first fault is named."""

DATA_BYTES_MAX = 64_000
"""Of an event without its free text: its entry in the sealed log has at most 65,535 bytes."""

CHARACTER_BYTES_MAX = 4


def read_candidate(
    body: bytes,
    index: int,
    actor: str,
    derive_id: Callable[[int], UUID] | None,
    allowed_campaign_ids: frozenset[UUID] | None = None,
    *,
    is_explained: bool = True,
) -> Candidate:
    """Decode one event and prepare it for the log.

    Args:
        body: the JSON text of the event.
        index: the index of the event in its request.
        actor: the name of the caller.
        derive_id: returns the id of an event without one by its index; None: such an event gets a new id.
        allowed_campaign_ids: the campaigns that the caller is restricted to; None: no restriction.
        is_explained: whether every fault of an event of at most 64 KiB is named, not only the first.

    Returns:
        the candidate.

    Raises:
        Malformed: the text is not JSON, or is nested too deeply.
        InvalidEvent: the event does not match its type, or has too much data.
    """
    is_explained = is_explained and len(body) <= EXPLAINED_BYTES_MAX
    try:
        check_text(body)
        check_values(body)
        event = decoder.decode(body)
        occurred_at = utc("occurred_at", event.occurred_at) if event.occurred_at is not None else None
    except (msgspec.DecodeError, InvalidFieldError, UnicodeDecodeError, RecursionError) as error:
        raise _refusal(body, index, error, is_explained=is_explained) from None
    event_type = EVENT_TYPES[type(event)]
    if event.stream_id is None and not (event_type.opens_stream or event_type.names_stream):
        raise _refusal(body, index, is_explained=is_explained)
    if (fault := joint_fault(event_type, event.data, event.stream_id)) is not None:
        raise _refusal(body, index, is_explained=is_explained, known=fault)
    event_id = event.id
    if event_id is None and derive_id is not None:
        event_id = derive_id(index)
    candidate = prepare(
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
    if breaks_rules(body, event, candidate):
        raise _refusal(body, index, is_explained=is_explained)
    if len(candidate.data) > DATA_BYTES_MAX // CHARACTER_BYTES_MAX:
        _check_size(candidate, index)
    return candidate


def _check_size(candidate: Candidate, index: int) -> None:
    size = len(candidate.data.encode())
    if size > DATA_BYTES_MAX:
        message = f"has {size:,} bytes without its free text; at most {DATA_BYTES_MAX:,} are allowed"
        raise InvalidEvent([{"index": index, "path": "$.data", "message": message}])


def _refusal(
    body: bytes, index: int, error: Exception | None = None, *, is_explained: bool, known: Fault | None = None
) -> LedgerError:
    """Return the refusal of an event, with all its faults if `is_explained`.

    Args:
        body: the JSON text of the event.
        index: the index of the event in its request.
        error: why it was not decoded; None if it was.
        is_explained: whether to search for all faults.
        known: the fault of an event that was decoded; the only one that is named if it is not searched for others.
    """
    prefix = f"event {index}: " if index else ""
    if isinstance(error, UnicodeDecodeError | RecursionError):
        return Malformed(f"{prefix}{json_problem(error)}")
    try:
        faults = faults_of(body.decode()) if is_explained else []
    except ValueError as json_error:
        is_json_error = isinstance(error, msgspec.DecodeError) and not isinstance(error, msgspec.ValidationError)
        return Malformed(f"{prefix}{error if is_json_error else json_error}")
    if not faults:
        if error is not None and not isinstance(error, msgspec.ValidationError | InvalidFieldError):
            return Malformed(f"{prefix}{error}")
        faults = [known or _first_fault(error)]
    return InvalidEvent(
        [{"index": index, "path": shortened(path), "message": shortened(message)} for path, message in faults]
    )


def _first_fault(error: Exception | None) -> Fault:
    """Return the fault that decoding stopped at, with the path that the message of msgspec ends with."""
    if error is None:
        return Fault("$", "the event names a member twice, or breaks another rule")
    message, _, path = str(error).rpartition(" - at `")
    path = path.removesuffix("`") if message else "$"
    field = error.__cause__.field if isinstance(error.__cause__, InvalidFieldError) else ""
    return Fault(f"{path}.{field}" if field else path, message or str(error))
