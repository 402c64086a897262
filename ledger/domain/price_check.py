"""Check the prices of a recorded log: every computed cost follows from usage and the named price.

`cost.priced` and a `cost.adjusted` with a price name no usage: that of the entry counts. It is remembered for each
entry whose cost was or may be computed, or it is looked up in the log by the few that need it.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import msgspec

from ledger.domain import money
from ledger.domain.accounts import currency_of, scopes_of
from ledger.domain.codec import EventData, InvalidFieldError
from ledger.domain.cost import CostAdjusted, CostDenied, CostPriced, CostRecorded, CostSettled
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


class _Charge(msgspec.Struct, array_like=True, gc=False):
    """What the state of an entry lacks of its call. It is kept encoded, since few of the entries will need it."""

    currency: str
    at: datetime
    usage: Usage
    price: int | None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Charge).decode


class PricedCalls:
    """The calls of the entries whose cost was computed, or may be; in the order of the log."""

    def __init__(self) -> None:
        self._charges: dict[UUID, bytes] = {}

    def __len__(self) -> int:
        return len(self._charges)

    def replace(self, known: Mapping[UUID, PricedCall]) -> None:
        """Forget all calls but these, which were looked up in the log.

        Args:
            known: The calls of the entries whose prices will change, by the stream of the entry.
        """
        self._charges = {stream_id: _encoded(found) for stream_id, found in known.items()}

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
                self._charges[recorded.stream_id] = _encoded(PricedCall(call, payload.usage, payload.price))
        elif changes_price(payload):
            assert isinstance(payload, CostPriced | CostAdjusted)
            encoded = self._charges.get(recorded.stream_id)
            if encoded is None:
                raise InvalidFieldError("price", "the cost of the entry was not computed")
            charge, entry = _decode(encoded), working_state.entries[recorded.stream_id]
            call = Call(entry.provider, entry.model_used, entry.service_tier, charge.currency, charge.at)
            known = PricedCall(call, charge.usage, charge.price)
            require_next_price(working_state.prices, known, payload)
            self._charges[recorded.stream_id] = _encoded(known._replace(price=payload.price))


def changes_price(payload: EventData) -> bool:
    """Whether an event gives an entry another price, so that it needs the call of the entry."""
    return isinstance(payload, CostPriced | CostAdjusted) and payload.price is not None


def _encoded(known: PricedCall) -> bytes:
    return _encode(_Charge(known.call.currency, known.call.at, known.usage, known.price))


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


def require_denied_price(book: PriceBook, payload: CostDenied, at: datetime) -> None:
    """Check the computed amount of a refused hold.

    Args:
        book: The prices of all events before.
        payload: A denial with a price.
        at: When it occurred, which is the time that the hold was priced for.

    Raises:
        InvalidFieldError: The price is not one of the call, or the amount does not follow from it.
    """
    assert payload.price is not None
    call = Call(payload.provider, payload.model_used, payload.service_tier, payload.currency, at)
    require_recorded_price(book, payload.price, payload.amount, call, payload.usage)


def _call(working_state: WorkingState, recorded: Recorded) -> Call:
    entry = working_state.entries[recorded.stream_id]
    currency = currency_of(scopes_of(working_state, entry.campaign_id, entry.agent_job_id), entry.currency)
    return Call(entry.provider, entry.model_used, entry.service_tier, currency, recorded.occurred_at)
