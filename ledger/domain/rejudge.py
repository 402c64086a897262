"""Recorded events told again: judged by the very rules of the append, while everything they were given stays.

What the service wrote of itself (releases, expiries, denials) is in the log too, and is not written a second time.
"""

import msgspec

from ledger.domain import cost
from ledger.domain.catalogue import CATALOGUE, UnknownEventTypeError, decode_stored
from ledger.domain.codec import InvalidFieldError, dump, time_text
from ledger.domain.cost import CostDenied
from ledger.domain.errors import LedgerError, Refused, UnknownReference
from ledger.domain.event import Candidate, Recorded
from ledger.domain.judge import apply
from ledger.domain.working_state import WorkingState


class InvalidLogError(LedgerError):
    """The log breaks its own rules."""


def candidate_of(told: Recorded) -> Candidate:
    """Read a recorded event, which must be written exactly as this ledger writes it.

    Raises:
        InvalidLogError: it is not, or its type is not known to this release.
    """
    try:
        payload = decode_stored(told.type, told.schema_version, told.data, told.text)
    except (UnknownEventTypeError, msgspec.DecodeError, InvalidFieldError, RecursionError) as error:
        raise InvalidLogError(f"{told.type} cannot be read: {error}") from None
    event_type = CATALOGUE[told.type]
    if told.category != event_type.category:
        raise InvalidLogError(f"{told.type} is a {event_type.category} event, not one of category {told.category!r}")
    # What an older release wrote in an older form reads as this release's: its bytes cannot be made again.
    if told.schema_version == event_type.schema_version:
        data, text = dump(payload)
        is_erased = told.text is None and told.text_commitment is not None
        if data.decode() != told.data or not (is_erased or (text.decode() if text else None) == told.text):
            raise InvalidLogError(f"the data or the text of {told.type} is not written as the ledger writes it")
    return Candidate(
        event_type=event_type,
        stream_id=told.stream_id,
        id=told.id,
        payload=payload,
        data=told.data,
        actor=told.actor,
        text=told.text,
        text_salt=told.text_salt,
        text_commitment=told.text_commitment,
        occurred_at=told.occurred_at,
        correlation_id=told.correlation_id,
        causation_id=told.causation_id,
    )


def restore(working_state: WorkingState, told: Recorded, candidate: Candidate) -> Recorded:
    """Judge a recorded event at its place in the log, and put what it changes into the working_state.

    No entry's cost can fall below zero (the fold of adjustments refuses it), so no account can.

    Args:
        working_state: stands at the event before.
        told: `over_budget` and `size` are not looked at.
        candidate: what `candidate_of` made of it.

    Returns:
        the row of the event as an append would have written it.

    Raises:
        InvalidLogError: the event could not have been recorded there. The working_state is then of no use any more.
    """
    if told.position != working_state.position + 1:
        if working_state.position == 0:
            raise InvalidLogError(f"the log begins at position {told.position}, not at 1")
        raise InvalidLogError(f"position {told.position} comes after {working_state.position}: positions have no gaps")
    if told.recorded_at < working_state.recorded_at:
        raise InvalidLogError(
            f"recorded at {time_text(told.recorded_at)}, before its predecessor "
            f"({time_text(working_state.recorded_at)})"
        )
    version = working_state.version(told.category, told.stream_id)
    if told.version != version + 1:
        raise InvalidLogError(
            f"{told.category} stream {told.stream_id} has version {told.version} after {version}: versions have no gaps"
        )
    if candidate.identity in working_state.identities:
        raise InvalidLogError(f"{told.category} stream {told.stream_id} holds event {told.id} already")
    working_state.recorded_at = told.recorded_at
    try:
        if isinstance(candidate.payload, CostDenied):
            _restore_denial(working_state, told, candidate, candidate.payload)
        else:
            apply(working_state, candidate)
    except (Refused, InvalidFieldError) as error:
        raise InvalidLogError(f"{told.type} was not possible: {error}") from None
    made = working_state.events[-1]
    if (made.campaign_id, made.agent_job_id) != (told.campaign_id, told.agent_job_id):
        raise InvalidLogError(
            f"{told.type} counts for campaign {told.campaign_id} and job {told.agent_job_id}, "
            f"by the events before it for campaign {made.campaign_id} and job {made.agent_job_id}"
        )
    return made


def _restore_denial(working_state: WorkingState, told: Recorded, candidate: Candidate, payload: CostDenied) -> None:
    """A refusal is recorded after everything else of its group: what it names may have been deleted meanwhile."""
    known = working_state.entries.get(candidate.stream_id)
    candidate.event_type.transition.require_stream(told.type, known.status if known else None)
    campaign_id, job_id = payload.campaign_id, payload.agent_job_id
    if job_id is not None and ("job", job_id) not in working_state.heads:
        raise UnknownReference("agent_job_id", job_id)
    if campaign_id is not None and ("campaign", campaign_id) not in working_state.heads:
        raise UnknownReference("campaign_id", campaign_id)
    if campaign_id is None and job_id is not None:
        # It counted for its job's campaign, or for none where that had been deleted.
        of_job = getattr(working_state.heads["job", job_id].state, "campaign_id", None)
        campaign_id = of_job if told.campaign_id == of_job else None
    working_state.record(candidate, campaign_id, job_id)
    entry = cost.opened(payload, campaign_id, job_id, working_state.recorded_at)
    working_state.put(working_state.entries, candidate.stream_id, entry)
