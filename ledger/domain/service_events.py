"""Events of the service itself: `cost.released` at the end of a job, `cost.expired`, `cost.denied`."""

from uuid import UUID, uuid5

import msgspec

from ledger.domain import cost
from ledger.domain.catalogue import type_of
from ledger.domain.codec import EventData, dump
from ledger.domain.errors import BudgetExceeded
from ledger.domain.event import Candidate
from ledger.domain.references import resolve_references
from ledger.domain.working_state import Denial, WorkingState

SERVICE = "ledger"
"""The actor of these events."""

_DENIAL_NAMESPACE = UUID("b3c7d0a4-8f52-5e1b-9a36-4d1f0e7c2b95")
"""Namespace of the ids of denials. Never change it: a refusal that is recorded already must be found."""


def hold_release(working_state: WorkingState, stream_id: UUID, ended: Candidate) -> Candidate:
    """Make the `cost.released` of a hold whose job has just ended.

    Args:
        working_state: At the event that ended the job.
        stream_id: The stream of the hold.
        ended: The event that ended the job.

    Returns:
        The event to record.
    """
    # The time of the append, known only under the lock, goes into the id: no client can take the id beforehand.
    event_id = uuid5(stream_id, f"released at {working_state.position + 1} {working_state.recorded_at.isoformat()}")
    return _candidate(stream_id, event_id, cost.CostReleased(), ended)


def later_release(stream_id: UUID, event_id: UUID, ended_by: UUID, correlation_id: UUID | None) -> Candidate:
    """Make the `cost.released` of a hold whose job ended in an earlier group.

    Args:
        stream_id: The stream of the hold.
        event_id: It must not be predictable: a client could take it beforehand.
        ended_by: The id of the event that ended the job.
        correlation_id: The correlation id of that event.

    Returns:
        The event to record.
    """
    released = _candidate(stream_id, event_id, cost.CostReleased(), None)
    return msgspec.structs.replace(released, causation_id=ended_by, correlation_id=correlation_id)


def hold_expiry(stream_id: UUID, event_id: UUID) -> Candidate:
    """Make the `cost.expired` of a hold. The id must not be predictable: a client could take it beforehand."""
    return _candidate(stream_id, event_id, cost.CostExpired(), None)


def denial_of(working_state: WorkingState, candidate: Candidate, refusal: BudgetExceeded) -> Denial:
    """Make the `cost.denied` of a refused hold.

    Its id depends on the caller, on what is requested, and on the balances that refuse it. So a client that polls a
    full budget adds one event, also with new ids, until a balance has another amount. Free text is left out: an id must
    not reveal it.

    Args:
        working_state: As it was before the hold.
        candidate: The `cost.reserved` that was refused.
        refusal: The limits that refused it.

    Returns:
        The event to record, with the campaign and job that it counts for.
    """
    reserved = candidate.payload
    assert isinstance(reserved, cost.CostReserved)
    references = resolve_references(working_state, reserved.campaign_id, reserved.agent_job_id)
    requested, _ = dump(msgspec.structs.replace(reserved, currency=refusal.currency, campaign_id=references[0]))
    name = msgspec.json.encode([candidate.actor, requested.decode(), refusal.scopes]).decode()
    stream_id = uuid5(_DENIAL_NAMESPACE, name)
    copied = {name: getattr(reserved, name) for name in reserved.__struct_fields__ if name != "currency"}
    if refusal.computed is not None:
        copied["amount"], copied["price"] = refusal.computed
    payload = cost.CostDenied(
        reserve_stream_id=candidate.stream_id,
        reserve_id=candidate.id,
        currency=refusal.currency,
        scopes=refusal.scopes,
        **copied,
    )
    denied = _candidate(stream_id, stream_id, payload, candidate)
    # The description is the text of the `cost.reserved`, byte for byte: its salt and commitment are valid for it.
    denied = msgspec.structs.replace(
        denied,
        text=candidate.text,
        text_salt=candidate.text_salt,
        text_commitment=candidate.text_commitment,
        occurred_at=candidate.occurred_at,
    )
    return Denial(denied, *references)


def _candidate(stream_id: UUID, event_id: UUID, payload: EventData, cause: Candidate | None) -> Candidate:
    data, _ = dump(payload)
    event_type = type_of(type(payload))
    return Candidate(
        event_type=event_type,
        stream_id=stream_id,
        id=event_id,
        payload=payload,
        schema_version=event_type.schema_version,
        data=data.decode(),
        actor=SERVICE,
        correlation_id=cause.correlation_id if cause else None,
        causation_id=cause.id if cause else None,
    )
