"""Check the prices of a recorded log: every computed cost follows from usage and the named price.

`cost.priced` and a `cost.adjusted` with a price name no usage: that of the entry counts, so it is remembered for each
entry whose cost was or may be computed.
"""

from typing import NamedTuple
from uuid import UUID

from ledger.domain import money
from ledger.domain.accounts import currency_of, scopes_of
from ledger.domain.codec import EventData, InvalidFieldError
from ledger.domain.cost import CostAdjusted, CostPriced, CostRecorded, CostSettled
from ledger.domain.event import Recorded
from ledger.domain.price_book import PriceBook
from ledger.domain.priced_cost import Call, require_price_of, require_recorded_price
from ledger.domain.usage import Usage
from ledger.domain.working_state import WorkingState


class PricedCall(NamedTuple):
    """The call of an entry, what it used, and the position of its price; None while it is unpriced."""

    call: Call
    usage: Usage
    price: int | None


class PricedCalls:
    """The calls of the entries whose cost was computed, or may be; in the order of the log."""

    def __init__(self) -> None:
        self._calls: dict[UUID, PricedCall] = {}

    def add(self, working_state: WorkingState, recorded: Recorded, payload: EventData) -> None:
        """Remember the call of a cost event, or check it against that of its entry.

        Args:
            working_state: The state after the event.
            recorded: The event.
            payload: Its decoded data.

        Raises:
            InvalidFieldError: A price or a computed amount is not the right one.
        """
        if isinstance(payload, CostRecorded | CostSettled):
            if payload.usage is not None and (payload.cost is None or payload.price is not None):
                call = _call(working_state, recorded)
                self._calls[recorded.stream_id] = PricedCall(call, payload.usage, payload.price)
        elif isinstance(payload, CostPriced | CostAdjusted) and payload.price is not None:
            known = self._calls.get(recorded.stream_id)
            if known is None:
                raise InvalidFieldError("price", "the cost of the entry was not computed")
            require_next_price(working_state.prices, known, payload)
            self._calls[recorded.stream_id] = known._replace(price=payload.price)


def require_next_price(book: PriceBook, known: PricedCall, payload: CostPriced | CostAdjusted) -> None:
    """Check a `cost.priced`, or a `cost.adjusted` from one price to another.

    Args:
        book: The prices of all events before.
        known: The call of the entry, with the price before.
        payload: The event.

    Raises:
        InvalidFieldError: The price is not one of the call, or the amount does not follow from it.
    """
    assert payload.price is not None
    if isinstance(payload, CostPriced):
        require_recorded_price(book, payload.price, payload.cost, known.call, known.usage)
        return
    price = require_price_of(book, payload.price, known.call)
    before = book.get(known.price or 0)
    if before is None or before.price is None:
        raise InvalidFieldError("price", "the entry has no price that another one could replace")
    now_costs, cost_before = price.table.cost_of(known.usage), before.table.cost_of(known.usage)
    if now_costs is None or cost_before is None or payload.amount != money.subtract(now_costs, cost_before):
        raise InvalidFieldError(
            "amount",
            f"is {money.plain(payload.amount)}, which is not the difference between the prices of positions "
            f"{known.price} and {payload.price}",
        )


def _call(working_state: WorkingState, recorded: Recorded) -> Call:
    entry = working_state.entries[recorded.stream_id]
    currency = currency_of(scopes_of(working_state, entry.campaign_id, entry.agent_job_id), entry.currency)
    return Call(entry.provider, entry.model_used, entry.service_tier, currency, recorded.occurred_at)
