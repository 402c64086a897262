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
from ledger.domain.cost import CostAdjusted, CostPriced, CostRecorded, CostReserved, CostSettled
from ledger.domain.price import PricePublished, PriceWithdrawn
from ledger.domain.price_book import PriceBook
from ledger.domain.price_check import PricedCall, require_next_price
from ledger.domain.priced_cost import Call, require_recorded_price
from ledger.log.price_cache import PriceRow, read_prices

FAULTS_SHOWN_MAX = 100
"""The most faults that are listed."""

COSTS_PER_STATEMENT_MAX = 2_000
"""Costs read by one statement, so that no statement holds its snapshot for long."""

# `charge` is the event that says what was used; of a hold it is the hold itself. What a settlement does not say is
# inherited from the first event. `before` is the price that a later one replaces. The third element of the state of a
# job is its currency, which it may have from the job above it.
PRICED_COSTS = f"""
SELECT event.position, event.type, event.schema_version, event.data::text AS data,
    charge.type AS charge_type, charge.schema_version AS charge_version, charge.data::text AS charge,
    charge.occurred_at, first.data ->> 'provider' AS provider, first.data ->> 'model_used' AS model_used,
    first.data ->> 'service_tier' AS service_tier, before.price AS before,
    coalesce(campaign.data ->> 'currency', job.state ->> 2, first.data ->> 'currency', 'USD') AS currency
FROM (
    SELECT * FROM ledger.cost_events
    WHERE position > $1 AND position <= $2 AND type <> 'cost.denied'
        AND data::text LIKE '%"price":%' AND data ->> 'price' IS NOT NULL
    ORDER BY position LIMIT {COSTS_PER_STATEMENT_MAX}
) AS event
JOIN ledger.cost_events AS first ON first.stream_id = event.stream_id AND first.version = 1
LEFT JOIN LATERAL (
    SELECT * FROM ledger.cost_events
    WHERE stream_id = event.stream_id AND version <= event.version
        AND type IN ('cost.recorded', 'cost.settled', event.type) AND data -> 'usage' IS NOT NULL
    ORDER BY version DESC LIMIT 1
) AS charge ON true
LEFT JOIN LATERAL (
    SELECT (data ->> 'price')::bigint AS price FROM ledger.cost_events
    WHERE stream_id = event.stream_id AND version < event.version AND type <> 'cost.reserved'
        AND data ->> 'price' ~ '^[0-9]{{1,18}}$'
    ORDER BY version DESC LIMIT 1
) AS before ON true
LEFT JOIN ledger.campaign_events AS campaign ON campaign.stream_id = first.campaign_id AND campaign.version = 1
LEFT JOIN ledger.streams AS job ON job.stream_id = first.agent_job_id AND job.category = 'job'
ORDER BY event.position
"""  # noqa: S608 (a fixed number)


async def find_price_faults(connection: Connection, until: int) -> AsyncIterator[str]:
    """Yield the faults of prices and of computed costs up to a position, at most `FAULTS_SHOWN_MAX` and a few."""
    book = PriceBook()
    faults = 0
    async for price in read_prices(connection):
        if (fault := _add_price(book, price)) is not None:
            faults += 1
            yield f"position {price.position}: {price.type}: {fault}"
    after = 0
    while faults < FAULTS_SHOWN_MAX:
        rows = await connection.fetch(PRICED_COSTS, after, until)
        for row in rows:
            if (fault := _fault(book, row)) is not None:
                faults += 1
                yield f"position {row['position']}: {row['type']}: {fault}"
        if len(rows) < COSTS_PER_STATEMENT_MAX:
            return
        after = rows[-1]["position"]


def _add_price(book: PriceBook, row: PriceRow) -> str | None:
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
        charge = decode_stored(row["charge_type"], row["charge_version"], row["charge"], None)
        _require_right_price(book, row, payload, charge)
    except (msgspec.ValidationError, UnknownEventTypeError) as error:
        return f"its price cannot be checked: {error}"
    except InvalidFieldError as error:
        return f"{error.field} {error}"
    return None


def _require_right_price(book: PriceBook, row: asyncpg.Record, payload: EventData, charge: EventData) -> None:
    assert isinstance(charge, CostRecorded | CostReserved | CostSettled)
    assert charge.usage is not None, "the query selects charges with usage"
    call = Call(
        row["provider"] if charge.provider is None else charge.provider,
        row["model_used"] if charge.model_used is None else charge.model_used,
        charge.service_tier or row["service_tier"],
        row["currency"],
        row["occurred_at"],
    )
    position: int = getattr(payload, "price", 0)
    if position >= row["position"]:
        raise InvalidFieldError("price", f"of position {position} is later than the cost")
    if isinstance(payload, CostPriced | CostAdjusted):
        require_next_price(book, PricedCall(call, charge.usage, row["before"]), payload)
    elif isinstance(payload, CostReserved):
        require_recorded_price(book, position, payload.amount, call, charge.usage)
    elif isinstance(payload, CostRecorded | CostSettled):
        require_recorded_price(book, position, payload.cost, call, charge.usage)
