"""Reprice entries: price unpriced ones, and adjust costs by prices that were published later."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated
from uuid import UUID, uuid5

import msgspec

from ledger.api.views import Money
from ledger.database import Connection
from ledger.domain import money
from ledger.domain.catalogue import type_of
from ledger.domain.codec import InvalidFieldError
from ledger.domain.cost import CostAdjusted, CostPriced
from ledger.domain.errors import LedgerError
from ledger.domain.event import Candidate, Receipt, Request
from ledger.domain.price_book import PriceBook
from ledger.domain.priced_cost import Call, ComputedCost, find_price
from ledger.domain.usage import Usage
from ledger.log.append import rehearse
from ledger.log.appender import Appender
from ledger.log.prepare import prepare
from ledger.log.price_cache import PriceCache
from ledger.log.submit import append_each
from projections.entries_to_reprice import PAGE_ENTRIES_MAX, EntryToReprice, Selection, read_entries

# An advisory lock: "ledger" in ASCII, and 4 for repricing. Two runs at a time would do the same work. The second could
# adjust nothing twice: see `_event_id`. A request must not wait for it with its turn and its connection.
TRY_LOCK_REPRICING = "SELECT pg_try_advisory_xact_lock(x'6c65646765720004'::bigint)"


class Repriced(msgspec.Struct):
    """What was done to at most 500 entries; `next` is null after the last ones."""

    examined: Annotated[int, msgspec.Meta(description="Number of entries that were looked at.")]
    priced: Annotated[int, msgspec.Meta(description="Number of entries that got their cost.")]
    adjusted: int
    still_unpriced: Annotated[int, msgspec.Meta(description="Number of entries for which there is still no price.")]
    refused: Annotated[
        int,
        msgspec.Meta(
            description="Number of entries that were changed meanwhile, or whose new cost is not possible: it is too "
            "large for an amount, or the adjustment would make the cost negative."
        ),
    ]
    amounts: Annotated[
        dict[str, Money], msgspec.Meta(description="The sum of the changes of costs, for each currency.")
    ]
    next: Annotated[UUID, msgspec.Meta(description="The value of `after` for the next entries.")] | None
    position: (
        Annotated[
            int,
            msgspec.Meta(
                description="The position of the last event that was appended, for `min_position`; null if none was."
            ),
        ]
        | None
    ) = None


class Change(msgspec.Struct):
    """An event that gives an entry its cost, or adjusts it."""

    candidate: Candidate
    currency: str
    amount: Decimal


class Plan(msgspec.Struct):
    """The changes of a page, and how many of its entries have no price, or a cost too large for an amount."""

    changes: list[Change]
    still_unpriced: int = 0
    too_large: int = 0


async def reprice_page(
    connection: Connection, appender: Appender, prices: PriceCache, selection: Selection, *, actor: str, dry_run: bool
) -> Repriced:
    """Reprice the next entries of a selection, at most `PAGE_ENTRIES_MAX`.

    Args:
        connection: inside a transaction that has the lock of `TRY_LOCK_REPRICING`; the read models are up to date.
        appender: appends the costs and adjustments.
        prices: the price book of the process.
        selection: which entries.
        actor: the key or the command-line user that reprices.
        dry_run: whether to append nothing; the events are judged all the same.

    Returns:
        what was done, or would be.
    """
    entries = await read_entries(connection, selection)
    # The book is loaded after the entries, so that it has the price of each of them.
    plan = _plan(await prices.current(connection), entries, actor)
    candidates = [change.candidate for change in plan.changes]
    outcomes: Sequence[Receipt | LedgerError]
    if dry_run:
        outcomes = await rehearse(connection, Request(candidates, independent=True), prices)
    else:
        outcomes = await append_each(appender, candidates)
    return _report(entries, plan, outcomes, dry_run=dry_run)


def _report(
    entries: Sequence[EntryToReprice], plan: Plan, outcomes: Sequence[Receipt | LedgerError], *, dry_run: bool
) -> Repriced:
    receipts = {
        outcome.position: change
        for change, outcome in zip(plan.changes, outcomes, strict=True)
        # A duplicate is the change of another run.
        if isinstance(outcome, Receipt) and not outcome.duplicate
    }
    done = list(receipts.values())
    amounts: dict[str, Decimal] = {}
    for change in done:
        amounts[change.currency] = money.add(amounts.get(change.currency, money.ZERO), change.amount)
    priced = sum(isinstance(change.candidate.payload, CostPriced) for change in done)
    return Repriced(
        examined=len(entries),
        priced=priced,
        adjusted=len(done) - priced,
        still_unpriced=plan.still_unpriced,
        refused=plan.too_large + len(plan.changes) - len(done),
        amounts={currency: money.plain(amount) for currency, amount in sorted(amounts.items())},
        next=entries[-1].id if len(entries) == PAGE_ENTRIES_MAX else None,
        position=max(receipts, default=None) if not dry_run else None,
    )


def _plan(book: PriceBook, entries: Sequence[EntryToReprice], actor: str) -> Plan:
    """Decide what changes the costs of entries to those of the present price book."""
    plan = Plan([])
    for entry in entries:
        call = Call(entry.provider, entry.model_used, entry.service_tier, entry.currency, entry.occurred_at)
        usage = _usage.decode(entry.usage)
        try:
            computed = find_price(book, call, usage)
        except InvalidFieldError:
            plan.too_large += 1
            continue
        if computed is None:
            plan.still_unpriced += entry.price_position is None
        elif (change := _change(book, entry, computed, usage, actor)) is not None:
            plan.changes.append(change)
    return plan


def _change(book: PriceBook, entry: EntryToReprice, computed: ComputedCost, usage: Usage, actor: str) -> Change | None:
    """Return what gives an entry the cost of another price.

    Args:
        book: the prices.
        entry: the entry.
        computed: its cost by the present price book.
        usage: what it used.
        actor: the key or the command-line user that reprices.

    Returns:
        the change; None if the entry has this price or this cost already.
    """
    payload: CostPriced | CostAdjusted = CostPriced(cost=computed.cost, price=computed.price.position)
    amount = computed.cost
    if entry.price_position is not None:
        adjusted = _adjustment(book, entry.price_position, computed, usage)
        if adjusted is None:
            return None
        payload, amount = adjusted, adjusted.amount
    candidate = prepare(type_of(type(payload)), payload, actor=actor, event_id=_event_id(entry), stream_id=entry.id)
    return Change(candidate, entry.currency, amount)


def _event_id(entry: EntryToReprice) -> UUID:
    """Derive the id of the change of an entry from the state that is changed.

    A run whose connection is lost may still be writing while the next one reads the state before. Both changes then
    have one id, and the log takes only one of them, whatever prices they were computed by.
    """
    return uuid5(entry.id, f"reprice {entry.position}")


def _adjustment(book: PriceBook, position: int, computed: ComputedCost, usage: Usage) -> CostAdjusted | None:
    """Return the adjustment from the price of a position to another one; None if price or cost is the same."""
    before = book[position].table.cost_of(usage)
    assert before is not None, "the cost was computed by this price"
    if before == computed.cost:
        return None
    reason = f"the price of position {computed.price.position} applies instead of that of position {position}"
    return CostAdjusted(amount=money.subtract(computed.cost, before), reason=reason, price=computed.price.position)


_usage = msgspec.json.Decoder(Usage)
