"""Judge price events: prices of one stream follow each other, and a withdrawal needs a price."""

from ledger.domain.codec import InvalidFieldError
from ledger.domain.event import Candidate, Receipt
from ledger.domain.price import PricePublished, PriceState, PriceWithdrawn
from ledger.domain.working_state import Head, WorkingState


def judge_price(working_state: WorkingState, candidate: Candidate) -> Receipt:
    """Judge a price event, record it, and put the price into the price book.

    Raises:
        IllegalTransition: A price is withdrawn that does not exist, or was withdrawn already.
        InvalidFieldError: The stream is not that of the provider, model, service tier and currency.
    """
    event_type, payload, key = candidate.event_type, candidate.payload, ("price", candidate.stream_id)
    assert isinstance(payload, PricePublished | PriceWithdrawn)
    head = working_state.heads.get(key)
    status = head.state.status if head else None
    event_type.require_stream(status)
    event_type.require_status(status)
    if isinstance(payload, PricePublished) and payload.stream_id != candidate.stream_id:
        raise InvalidFieldError("model", f"the stream of this price is {payload.stream_id}, not {candidate.stream_id}")
    receipt = working_state.record(candidate, None, None)
    working_state.put(working_state.heads, key, Head(receipt.version, PriceState(event_type.transition.to or "")))
    price = working_state.prices.entry(receipt.position, candidate.stream_id, payload)
    working_state.put(working_state.prices, receipt.position, price)
    return receipt
