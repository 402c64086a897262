"""Judge `ledger.*` events: they are recorded as sent, but a text can be erased only once."""

from ledger.domain.errors import NothingToErase
from ledger.domain.event import Candidate, Receipt
from ledger.domain.ledger_events import PayloadErased
from ledger.domain.working_state import WorkingState


def require_text_to_erase(working_state: WorkingState, candidate: Candidate) -> None:
    """Refuse an erasure if there is no text to erase; other events pass.

    Not part of `judge_ledger`: when recorded events are judged again, erased texts are absent already.

    Raises:
        NothingToErase: The event never had free text, or the text was erased already.
    """
    if not isinstance(candidate.payload, PayloadErased):
        return
    position = candidate.payload.position
    if position not in working_state.erasable:
        raise NothingToErase(f"the event at position {position} has no free text")
    if not working_state.erasable[position]:
        raise NothingToErase(f"the free text of the event at position {position} was erased already")


def judge_ledger(working_state: WorkingState, candidate: Candidate) -> Receipt:
    """Record an event of category `ledger`."""
    if isinstance(candidate.payload, PayloadErased):
        working_state.put(working_state.erasable, candidate.payload.position, False)
    receipt = working_state.record(candidate, None, None)
    working_state.put(working_state.versions, candidate.stream_id, receipt.version)
    return receipt
