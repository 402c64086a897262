"""Price check of `ledger verify`: computes every computed cost again, from usage and price.

Export, import and replay check the same with `ledger.domain.price_check`, on events in the order of the log. Here the
events of an entry are joined in SQL. Faults are reported by position.
"""

from collections.abc import AsyncIterator

import asyncpg
import msgspec

from ledger.database import Connection
from ledger.domain.catalogue import UnknownEventTypeError, decode_stored
from ledger.domain.codec import EventData, InvalidFieldError
from ledger.domain.cost import CostAdjusted, CostDenied, CostPriced, CostRecorded, CostReserved, CostSettled
from ledger.domain.price import PricePublished, PriceWithdrawn
from ledger.domain.price_book import PriceBook
from ledger.domain.price_check import PricedCall, require_denied_price, require_next_price
from ledger.domain.priced_cost import require_recorded_price
from ledger.log.price_cache import StoredPrice, read_prices
from ledger.log.priced_calls import COLUMNS, JOINS, call_of

FAULTS_SHOWN_MAX = 100
"""The most faults that are listed."""

EVENTS_PER_STATEMENT_MAX = 10_000
"""Events of any kind among which one statement looks for costs, so that no statement holds its snapshot for long."""

PRICED_COSTS = f"""
SELECT event.position, event.type, event.schema_version, event.data::text AS data, {COLUMNS}
FROM (
    SELECT * FROM ledger.cost_events
    WHERE position > $1 AND position <= $2 AND data::text LIKE '%"price":%' AND data ->> 'price' IS NOT NULL
) AS event
{JOINS}
ORDER BY event.position
"""  # noqa: S608 (fixed texts)


async def find_price_faults(connection: Connection, until: int) -> AsyncIterator[str]:
    """Yield the faults of prices and of computed costs up to a position, at most `FAULTS_SHOWN_MAX` and a few."""
    book = PriceBook()
    faults = 0
    async for price in read_prices(connection):
        if (fault := _add_price(book, price)) is not None:
            faults += 1
            yield f"position {price.position}: {price.type}: {fault}"
    for after in range(0, until, EVENTS_PER_STATEMENT_MAX):
        if faults >= FAULTS_SHOWN_MAX:
            return
        for row in await connection.fetch(PRICED_COSTS, after, min(after + EVENTS_PER_STATEMENT_MAX, until)):
            if (fault := _fault(book, row)) is not None:
                faults += 1
                yield f"position {row['position']}: {row['type']}: {fault}"


def _add_price(book: PriceBook, row: StoredPrice) -> str | None:
    """Add a price event to the book; return why that is not possible, or None."""
    try:
        payload = decode_stored(row.type, row.schema_version, row.data, None)
        assert isinstance(payload, PricePublished | PriceWithdrawn)
        if isinstance(payload, PricePublished) and payload.stream_id != row.stream_id:
            return f"its price belongs to stream {payload.stream_id}, not to {row.stream_id}"
        book.add(row.position, row.stream_id, payload)
    except (msgspec.ValidationError, UnknownEventTypeError) as error:
        return f"the price cannot be read: {error}"
    except KeyError:
        return "there is no price before it that it could withdraw"
    return None


def _fault(book: PriceBook, row: asyncpg.Record) -> str | None:
    """Return what is wrong with the price of a cost event; None if it is right."""
    try:
        payload = decode_stored(row["type"], row["schema_version"], row["data"], None)
        if row["charge"] is None:
            return "it has a price, but no usage was reported"
        _require_right_price(book, row["position"], payload, call_of(row))
    except (msgspec.ValidationError, UnknownEventTypeError) as error:
        return f"its price cannot be checked: {error}"
    except InvalidFieldError as error:
        return f"{error.field} {error}"
    return None


def _require_right_price(book: PriceBook, at_position: int, payload: EventData, known: PricedCall) -> None:
    price: int = getattr(payload, "price", 0)
    if price >= at_position:
        raise InvalidFieldError("price", f"of position {price} is later than the cost")
    if isinstance(payload, CostPriced | CostAdjusted):
        require_next_price(book, known, payload)
    elif isinstance(payload, CostDenied):
        require_denied_price(book, payload, known.call.at)
    elif isinstance(payload, CostReserved):
        require_recorded_price(book, price, payload.amount, known.call, known.usage)
    elif isinstance(payload, CostRecorded | CostSettled):
        require_recorded_price(book, price, payload.cost, known.call, known.usage)
