"""Price cost events: look up the price of a new event, check that of a recorded one.

A new event with usage and no cost gets both fields, `cost` (of a hold: `amount`) and `price`, the position of the price
event. A recorded event is never priced again: only its price event and its cost are checked.
"""

from collections.abc import Sequence
from copy import copy
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

import msgspec

from ledger.domain import money
from ledger.domain.budget_entry import Entry
from ledger.domain.codec import InvalidFieldError
from ledger.domain.cost import CostRecorded, CostReserved, CostSettled
from ledger.domain.event import Candidate
from ledger.domain.price import DEFAULT_TIER
from ledger.domain.price_book import BookPrice, PriceBook, PriceKey
from ledger.domain.price_errors import Unpriced
from ledger.domain.usage import Usage
from ledger.domain.working_state import WorkingState

force_setattr = msgspec.structs.force_setattr

CostByUsage = CostRecorded | CostReserved | CostSettled


class Call(NamedTuple):
    """What decides the price of a call; `provider` or `model_used` is None if it was not reported."""

    provider: str | None
    model_used: str | None
    service_tier: str | None
    currency: str
    at: datetime

    def inheriting(self, provider: str | None, model_used: str | None, service_tier: str | None) -> "Call":
        """Return the call of a settlement, with what its first event says of all that the settlement does not say."""
        return Call(
            provider if self.provider is None else self.provider,
            model_used if self.model_used is None else self.model_used,
            self.service_tier or service_tier,
            self.currency,
            self.at,
        )

    @property
    def key(self) -> PriceKey | None:
        """The key for the price book; None if provider or model is unknown."""
        if self.provider is None or self.model_used is None:
            return None
        return PriceKey(self.provider, self.model_used, self.service_tier or DEFAULT_TIER, self.currency)


class ComputedCost(NamedTuple):
    """The cost of a call, and the price it was computed by."""

    cost: Decimal
    price: BookPrice


def find_price(book: PriceBook, call: Call, usage: Usage) -> ComputedCost | None:
    """Look up the price of a call and compute its cost.

    Args:
        book: The prices.
        call: The call.
        usage: What it used.

    Returns:
        Cost and price; None if there is no price, or if it has no rate for something that was used.

    Raises:
        InvalidFieldError: The cost is too large for an amount.
    """
    return compute_cost(look_up(book, call), usage)


def look_up(book: PriceBook, call: Call) -> BookPrice | None:
    """Return the price of a call; None if there is none."""
    key = call.key
    return book.find(key, call.at) if key is not None else None


def compute_cost(price: BookPrice | None, usage: Usage) -> ComputedCost | None:
    """Compute what a usage costs; see `find_price`."""
    if price is None:
        return None
    try:
        cost = price.table.cost_of(usage)
    except ValueError as error:
        raise InvalidFieldError("usage", f"at the price of position {price.position} the cost {error}") from None
    return ComputedCost(cost, price) if cost is not None else None


def with_computed_cost(
    working_state: WorkingState, candidate: Candidate, currency: str, entry: Entry | None = None
) -> Candidate:
    """Price a new event with usage and no cost, and check a recorded one that was priced; others stay as they are.

    Args:
        working_state: Holds the price book.
        candidate: A `cost.recorded`, `cost.reserved` or `cost.settled` with usage.
        currency: The currency of the entry.
        entry: The entry that is settled: what the event does not say is inherited from it. None for a first event.

    Raises:
        Unpriced: A hold has no price.
        InvalidFieldError: The cost is too large for an amount, or a recorded price or cost is not the right one.
    """
    payload = candidate.payload
    assert isinstance(payload, CostRecorded | CostReserved | CostSettled)
    if not candidate.needs_price and payload.price is None:
        return candidate
    at = candidate.occurred_at or working_state.recorded_at
    call = Call(payload.provider, payload.model_used, payload.service_tier, currency, at)
    if entry is not None:
        call = call.inheriting(entry.provider, entry.model_used, entry.service_tier)
    if candidate.needs_price:
        return _with_price(working_state, candidate, call)
    assert payload.price is not None
    amount = payload.amount if isinstance(payload, CostReserved) else payload.cost
    require_recorded_price(working_state.prices, payload.price, amount, call, payload.usage)
    return candidate


def _with_price(working_state: WorkingState, candidate: Candidate, call: Call) -> Candidate:
    """Return a new event with its cost and price; a fact without a price stays as it is.

    Args:
        working_state: Holds the price book.
        candidate: An event with `needs_price`.
        call: The call that it reports.

    Raises:
        Unpriced: A hold has no price.
        InvalidFieldError: The cost is too large for an amount.
    """
    payload = candidate.payload
    assert isinstance(payload, CostRecorded | CostReserved | CostSettled)
    assert payload.usage is not None
    price = look_up(working_state.prices, call)
    computed = compute_cost(price, payload.usage)
    if computed is not None:
        return _filled_in(candidate, payload, computed)
    if isinstance(payload, CostReserved):
        raise unpriced_error(price, call, payload.usage, is_hold=True)
    return candidate


def require_fillable(fields: Sequence[str], amount: str) -> None:
    """Check the order of fields that `_filled_in` relies on.

    Args:
        fields: The fields of the data, in their order.
        amount: The field with the computed cost.
    """
    is_first = fields[0] == amount or fields[:2] == ("resource_type", amount)
    assert (is_first, fields[-1]) == (True, "price"), f"{amount} must begin the data, and price must end them: {fields}"


for _kind in (CostRecorded, CostReserved, CostSettled):
    require_fillable(_kind.__struct_fields__, "amount" if _kind is CostReserved else "cost")


def _filled_in(candidate: Candidate, payload: CostByUsage, computed: ComputedCost) -> Candidate:
    """Write cost and price into the canonical data at the places of their fields: it is not written a second time.

    The cost is the first field, or follows `resource_type`, whose values need no escapes; the price is the last field.
    """
    amount, position = "amount" if isinstance(payload, CostReserved) else "cost", computed.price.position
    data = candidate.data
    start = 1 if isinstance(payload, CostSettled) else len(f'{{"resource_type":"{payload.resource_type}"')
    field = f'"{amount}":"{money.plain(computed.cost)}"'
    field = f"{field}," if start == 1 else f",{field}"
    # A copy: the locked path may judge the event that was sent once more.
    filled = copy(payload)
    force_setattr(filled, amount, computed.cost)
    force_setattr(filled, "price", position)
    priced_candidate = copy(candidate)
    force_setattr(priced_candidate, "payload", filled)
    force_setattr(priced_candidate, "data", f'{data[:start]}{field}{data[start:-1]},"price":{position}}}')
    force_setattr(priced_candidate, "needs_price", False)
    return priced_candidate


def unpriced_error(price: BookPrice | None, call: Call, usage: Usage, *, is_hold: bool = False) -> Unpriced:
    """Return the refusal of a call without a price; it names the rates that are missing, or what the usage leaves open.

    Args:
        price: What was found for the call.
        call: The call.
        usage: What it used.
        is_hold: Whether it is a hold, which may send its amount instead.
    """
    without_rate = price.table.without_rate(usage) if price is not None else ()
    ambiguous = price.table.ambiguous(usage) if price is not None else ()
    if ambiguous:
        advice = "send the amount" if is_hold else "send the cost with the call"
    else:
        advice = "publish one, or send the amount" if is_hold else "publish one"
    tier = call.service_tier or DEFAULT_TIER
    return Unpriced(call.provider, call.model_used, tier, call.currency, without_rate, ambiguous, advice)


def require_recorded_price(
    book: PriceBook, position: int, cost: Decimal | None, call: Call, usage: Usage | None
) -> None:
    """Check cost and price of a recorded event against the price event; nothing is looked up.

    Args:
        book: The prices of all events before.
        position: The position of the price event, as recorded.
        cost: The recorded cost.
        call: The call that was priced.
        usage: What it used.

    Raises:
        InvalidFieldError: The price event does not exist before, is that of another model, service tier or currency,
            or is not in force yet; or the cost is another one.
    """
    price = require_price_of(book, position, call)
    expected = price.table.cost_of(usage) if usage is not None else None
    if expected is None or cost != expected:
        computed = "nothing" if expected is None else money.plain(expected)
        recorded = "nothing" if cost is None else money.plain(cost)
        raise InvalidFieldError("cost", f"is {recorded}, but {computed} by the price of position {position}")


def require_price_of(book: PriceBook, position: int, call: Call) -> BookPrice:
    """Return the price of a position; raise `InvalidFieldError` if it is not one of this call."""
    price, key = book.get(position), call.key
    if price is None or price.price is None:
        raise InvalidFieldError("price", f"there is no published price at position {position} before this event")
    if key is None or not price.is_for(key) or price.effective_from > call.at:
        raise InvalidFieldError(
            "price",
            f"the price of position {position} is not one of {call.model_used} of {call.provider}, service tier "
            f"{call.service_tier or DEFAULT_TIER}, in {call.currency}, at that time",
        )
    return price
