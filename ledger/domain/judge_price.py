"""Judge price events: prices of one stream follow each other, and a withdrawal needs a price."""

from ledger.domain.codec import InvalidFieldError, time_text
from ledger.domain.errors import IllegalTransition
from ledger.domain.event import Candidate, Receipt
from ledger.domain.price import PricePublished, PriceState, PriceWithdrawn
from ledger.domain.working_state import Head, WorkingState


def judge_price(working_state: WorkingState, candidate: Candidate) -> Receipt:
    """Judge a price event, record it, and put the price into the price book.

    Raises:
        IllegalTransition: A price is withdrawn at a time at which there is none.
        InvalidFieldError: The stream is not that of the provider, model, service tier and currency.
    """
    event_type, payload, key = candidate.event_type, candidate.payload, ("price", candidate.stream_id)
    assert isinstance(payload, PricePublished | PriceWithdrawn)
    head = working_state.heads.get(key)
    event_type.require_stream(head.state.status if head else None)
    if isinstance(payload, PriceWithdrawn):
        _require_price(working_state, candidate, payload)
    elif payload.stream_id != candidate.stream_id:
        raise InvalidFieldError("model", f"the stream of this price is {payload.stream_id}, not {candidate.stream_id}")
    receipt = working_state.record(candidate, None, None)
    working_state.put(working_state.heads, key, Head(receipt.version, PriceState(event_type.transition.to or "")))
    price = working_state.prices.entry(receipt.position, candidate.stream_id, payload)
    working_state.put(working_state.prices, receipt.position, price)
    return receipt


def require_room(working_state: WorkingState, candidate: Candidate) -> None:
    """Raise `InvalidFieldError` if the price book is full. Recorded prices are not bounded: they are in the log."""
    payload = candidate.payload
    working_state.prices.require_room(payload if isinstance(payload, PricePublished) else None)


def _require_price(working_state: WorkingState, candidate: Candidate, payload: PriceWithdrawn) -> None:
    """Refuse to withdraw a price where there is none. What the stream says at other times does not matter."""
    event_type, at = candidate.event_type, payload.effective_from
    found = working_state.prices.in_force(candidate.stream_id, at)
    if found is None:
        detail = f"there is no price to withdraw at {time_text(at)}: the first price of the stream applies later"
        raise IllegalTransition(detail, None, event_type.transition.allowed_from)
    event_type.require_status("withdrawn" if found.price is None else "published")
