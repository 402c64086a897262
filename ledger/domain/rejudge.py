"""Judge recorded events again, by the rules of an append, to verify or import a log.

Positions, times and ids stay as they were recorded. Events that the service wrote (releases, expiries, denials) are in
the log already and are not written a second time.
"""

import msgspec

from ledger.domain import budget_entry
from ledger.domain.catalogue import CATALOGUE, UnknownEventTypeError, decode_as_written, decode_stored
from ledger.domain.codec import InvalidFieldError, dump, time_text
from ledger.domain.cost import CostDenied
from ledger.domain.errors import Refused, UnknownReference
from ledger.domain.event import Candidate, Recorded
from ledger.domain.judge import apply
from ledger.domain.log_history import InvalidLogError, LogHistory
from ledger.domain.price_check import require_denied_price
from ledger.domain.working_state import WorkingState


def to_candidate(recorded: Recorded) -> Candidate:
    """Decode a recorded event and check that its data and text are written in the canonical form.

    Raises:
        InvalidLogError: The data or text is not canonical, or this release does not know the type.
    """
    try:
        stored = recorded.type, recorded.schema_version, recorded.data, recorded.text
        payload = decode_stored(*stored)
        is_newest = recorded.schema_version == CATALOGUE[recorded.type].schema_version
        written = payload if is_newest else decode_as_written(*stored)
    except (UnknownEventTypeError, msgspec.DecodeError, InvalidFieldError, RecursionError) as error:
        raise InvalidLogError(f"{recorded.type} cannot be read: {error}") from None
    event_type = CATALOGUE[recorded.type]
    if recorded.category != event_type.category:
        raise InvalidLogError(
            f"{recorded.type} is an event type of category {event_type.category!r}, not of {recorded.category!r}"
        )
    data, text = dump(written)
    is_erased = recorded.text is None and recorded.text_commitment is not None
    if data.decode() != recorded.data or not (is_erased or (text.decode() if text else None) == recorded.text):
        raise InvalidLogError(f"the data or the text of {recorded.type} is not in the canonical form")
    return Candidate(
        event_type=event_type,
        stream_id=recorded.stream_id,
        id=recorded.id,
        payload=payload,
        schema_version=recorded.schema_version,
        data=recorded.data,
        actor=recorded.actor,
        text=recorded.text,
        text_salt=recorded.text_salt,
        text_commitment=recorded.text_commitment,
        occurred_at=recorded.occurred_at,
        correlation_id=recorded.correlation_id,
        causation_id=recorded.causation_id,
    )


def rejudge(working_state: WorkingState, history: LogHistory, recorded: Recorded, candidate: Candidate) -> Recorded:
    """Judge a recorded event at its position and put its changes into the working state.

    Args:
        working_state: The state after the event before.
        history: The events before.
        recorded: The event; its `over_budget` and `size` are ignored.
        candidate: The same event, from `to_candidate`.

    Returns:
        The row that an append would have written.

    Raises:
        InvalidLogError: The event could not have been recorded there. The working state must not be used any more.
    """
    _require_next(working_state, recorded, candidate)
    history.add(recorded, candidate)
    working_state.recorded_at = recorded.recorded_at
    try:
        if isinstance(candidate.payload, CostDenied):
            _rejudge_denial(working_state, recorded, candidate, candidate.payload)
        else:
            apply(working_state, candidate)
        history.priced_calls.add(working_state, recorded, candidate.payload)
    except (Refused, InvalidFieldError) as error:
        raise InvalidLogError(f"{recorded.type} was not possible: {error}") from None
    expected = working_state.events[-1]
    if (expected.campaign_id, expected.agent_job_id) != (recorded.campaign_id, recorded.agent_job_id):
        raise InvalidLogError(
            f"{recorded.type} counts for campaign {recorded.campaign_id} and job {recorded.agent_job_id}, but by the "
            f"events before it for campaign {expected.campaign_id} and job {expected.agent_job_id}"
        )
    return expected


def _require_next(working_state: WorkingState, recorded: Recorded, candidate: Candidate) -> None:
    """Check position, time, version and identity against the events before."""
    if recorded.position != working_state.position + 1:
        if working_state.position == 0:
            raise InvalidLogError(f"the log starts at position {recorded.position}, not at 1")
        raise InvalidLogError(
            f"position {recorded.position} follows {working_state.position}: positions must have no gaps"
        )
    if recorded.recorded_at < working_state.recorded_at:
        raise InvalidLogError(
            f"recorded at {time_text(recorded.recorded_at)}, before the previous event "
            f"({time_text(working_state.recorded_at)})"
        )
    version = working_state.version(recorded.category, recorded.stream_id)
    if recorded.version != version + 1:
        raise InvalidLogError(
            f"in {recorded.category} stream {recorded.stream_id} version {recorded.version} follows {version}: "
            "versions must have no gaps"
        )
    if candidate.identity in working_state.identities:
        raise InvalidLogError(f"{recorded.category} stream {recorded.stream_id} has event {recorded.id} already")


def _rejudge_denial(working_state: WorkingState, recorded: Recorded, candidate: Candidate, payload: CostDenied) -> None:
    """Judge a `cost.denied`: it follows all other events of its group, which may have deleted what it names."""
    entry = working_state.entries.get(candidate.stream_id)
    candidate.event_type.require_stream(entry.status if entry else None)
    campaign_id, job_id = payload.campaign_id, payload.agent_job_id
    if job_id is not None and ("job", job_id) not in working_state.heads:
        raise UnknownReference("agent_job_id", job_id)
    if campaign_id is not None and ("campaign", campaign_id) not in working_state.heads:
        raise UnknownReference("campaign_id", campaign_id)
    if campaign_id is None and job_id is not None:
        # It counts for the campaign of its job, or for none if that had been deleted.
        job_campaign_id = getattr(working_state.heads["job", job_id].state, "campaign_id", None)
        campaign_id = job_campaign_id if recorded.campaign_id == job_campaign_id else None
    if payload.price is not None:
        require_denied_price(working_state.prices, payload, recorded.occurred_at)
    working_state.record(candidate, campaign_id, job_id)
    working_state.put(
        working_state.entries,
        candidate.stream_id,
        budget_entry.open_entry(payload, campaign_id, job_id, working_state.recorded_at),
    )
