"""Queries for repricing: entries with usage and no cost yet, or whose cost another price may change."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from ledger.database import Connection

PAGE_ENTRIES_MAX = 500
"""The most entries that one request reprices."""

# A statement for each partial index: one condition with OR would walk over the whole primary key.
ENTRIES = """
SELECT id, provider, model_used, service_tier, currency, occurred_at, usage::text AS usage, price_position, position
FROM public.budget_entries
WHERE {which} AND status = 'settled' AND usage IS NOT NULL
    AND ($1::uuid IS NULL OR campaign_id = $1)
    AND ($2::timestamptz IS NULL OR occurred_at >= $2) AND ($3::timestamptz IS NULL OR occurred_at < $3)
    AND ($4::uuid IS NULL OR id > $4)
ORDER BY id LIMIT $5
"""
UNPRICED_ENTRIES = ENTRIES.format(which="unpriced")
PRICED_ENTRIES = ENTRIES.format(which="price_position IS NOT NULL")


class Selection(NamedTuple):
    """Which entries to reprice; a value that is None selects all. `start` is inclusive, `end` exclusive."""

    with_priced: bool
    campaign_id: UUID | None
    start: datetime | None
    end: datetime | None
    after: UUID | None


class EntryToReprice(NamedTuple):
    """An entry to price: the call, what it used as JSON, the price of its cost, and the position of its last event."""

    id: UUID
    provider: str | None
    model_used: str | None
    service_tier: str | None
    currency: str
    occurred_at: datetime
    usage: str
    price_position: int | None
    position: int


async def read_entries(connection: Connection, selection: Selection) -> Sequence[EntryToReprice]:
    """Read the next entries to reprice, at most `PAGE_ENTRIES_MAX`, in the order of their ids."""
    with_priced, *arguments = selection
    found: dict[UUID, EntryToReprice] = {}
    # The priced ones last: an entry that got its price in between is in both results.
    for statement in (UNPRICED_ENTRIES, PRICED_ENTRIES) if with_priced else (UNPRICED_ENTRIES,):
        for row in await connection.fetch(statement, *arguments, PAGE_ENTRIES_MAX):
            found[row["id"]] = EntryToReprice(*row)
    return sorted(found.values())[:PAGE_ENTRIES_MAX]
