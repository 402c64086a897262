"""Judge requests against the working state: a receipt for each event, or a refusal with its reason.

An event is judged in this order: identity (duplicates), expected version, stream, references, status, money; its shape
was checked before. Later events of a request see the effects of earlier ones. A refused request changes nothing, except
that a hold refused because of a budget is recorded as a `cost.denied`.
"""

from collections.abc import Callable, Generator

import msgspec

from ledger.domain.access import require_references_allowed, require_stream_allowed
from ledger.domain.codec import InvalidFieldError
from ledger.domain.errors import BudgetExceeded, EventIdConflict, InvalidEvent, Refused, VersionConflict
from ledger.domain.event import Candidate, Receipt, Request
from ledger.domain.judge_campaign import judge_campaign
from ledger.domain.judge_content import judge_content
from ledger.domain.judge_cost import judge_cost, release_holds, with_limits
from ledger.domain.judge_job import judge_job
from ledger.domain.judge_ledger import judge_ledger, require_text_to_erase
from ledger.domain.judge_price import judge_price, require_room
from ledger.domain.same_content import has_same_content
from ledger.domain.service_events import denial_of
from ledger.domain.working_state import WorkingState

Verdict = list[Receipt | Refused]
"""If the events of a request are independent, one receipt or refusal for each. Otherwise the receipts of all events, or
only the refusal because of which all of them were refused; its `index` is the number of the refused event."""


def judge(working_state: WorkingState, request: Request) -> Verdict:
    """Judge one request and put its changes into the working state."""
    if len(request.candidates) == 1:
        working_state.begin_request()
        return [_judge_single(working_state, request.candidates[0], 0)]
    steps = judge_stepwise(working_state, request)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            verdict: Verdict = end.value
            return verdict


def judge_stepwise(working_state: WorkingState, request: Request) -> Generator[None, None, Verdict]:
    """Judge one request, and yield after each event, so that the caller may pause within a large request."""
    working_state.begin_request()
    if len(request.candidates) == 1:
        return [_judge_single(working_state, request.candidates[0], 0)]
    verdicts: Verdict = []
    savepoint = working_state.savepoint()
    for index, candidate in enumerate(request.candidates):
        if request.independent:
            verdicts.append(_judge_single(working_state, candidate, index))
        else:
            verdict = _refusal_as_value(working_state, candidate, index)
            if isinstance(verdict, Refused):
                working_state.roll_back(savepoint)
                return [verdict]
            verdicts.append(verdict)
        yield
    return verdicts


def _judge_single(working_state: WorkingState, candidate: Candidate, index: int) -> Receipt | Refused:
    """Judge one event separately; if a budget refuses its hold, note the denial to be recorded."""
    savepoint = working_state.savepoint()
    verdict = _refusal_as_value(working_state, candidate, index)
    if isinstance(verdict, Refused):
        working_state.roll_back(savepoint)
        if isinstance(verdict, BudgetExceeded):
            denial = denial_of(working_state, candidate, verdict)
            working_state.denials.setdefault(denial.candidate.id, denial)
    return verdict


def _refusal_as_value(working_state: WorkingState, candidate: Candidate, index: int) -> Receipt | Refused:
    """Judge an event; return a refusal, with the event's index in the request, instead of raising it."""
    try:
        return _judge_event(working_state, candidate)
    except InvalidFieldError as error:
        refusal: Refused = InvalidEvent([{"index": index, "path": f"$.data.{error.field}", "message": str(error)}])
    except Refused as error:
        refusal = error
    refusal.index = index
    return refusal


def _judge_event(working_state: WorkingState, candidate: Candidate) -> Receipt:
    """Check an event in the documented order, and record it; for a duplicate, return its first receipt."""
    is_restricted = candidate.allowed_campaign_ids is not None
    if is_restricted:
        require_stream_allowed(working_state, candidate)
    if (duplicate := _check_identity_and_version(working_state, candidate)) is not None:
        return duplicate
    if is_restricted:
        require_references_allowed(working_state, candidate)
    if candidate.event_type.category == "ledger":
        require_text_to_erase(working_state, candidate)
    elif candidate.event_type.category == "price":
        require_room(working_state, candidate)
    receipt = with_limits(working_state, candidate, apply(working_state, candidate))
    if candidate.event_type.ends_job:
        release_holds(working_state, candidate)
    return receipt


def _check_identity_and_version(working_state: WorkingState, candidate: Candidate) -> Receipt | None:
    """Return the first receipt of an event that is recorded already; otherwise check the expected version."""
    if candidate.identity in working_state.identities:
        recorded = working_state.recorded_identity(candidate.identity)
        if has_same_content(recorded, candidate, working_state):
            return with_limits(working_state, candidate, msgspec.structs.replace(recorded.receipt, duplicate=True))
        raise EventIdConflict.in_stream(*candidate.identity, recorded.receipt.position)
    if candidate.is_repeat:
        raise EventIdConflict(
            "the Idempotency-Key was used in the last 24 hours for a request that did not record this event; "
            "send other content with a new key"
        )
    if candidate.expected_version is not None:
        category, stream_id, _ = candidate.identity
        version = working_state.version(category, stream_id)
        if candidate.expected_version != version:
            raise VersionConflict(category, stream_id, candidate.expected_version, version)
    return None


def apply(working_state: WorkingState, candidate: Candidate) -> Receipt:
    """Check stream, references, status and money of an event, and put its changes into the working state.

    Raises:
        Refused, InvalidFieldError: The event is not possible.
    """
    return _JUDGES[candidate.event_type.category](working_state, candidate)


_JUDGES: dict[str, Callable[[WorkingState, Candidate], Receipt]] = {
    "campaign": judge_campaign,
    "content": judge_content,
    "job": judge_job,
    "cost": judge_cost,
    "price": judge_price,
    "ledger": judge_ledger,
}
