"""What an import changes: the prices that the log does not have yet, as events with derived ids."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NamedTuple
from uuid import UUID, uuid5

import msgspec

from ledger.domain.codec import dump
from ledger.domain.price import PricePublished
from ledger.domain.price_book import BookPrice, PriceBook


class PriceChange(NamedTuple):
    """A price to publish, and the one that it replaces from its `effective_from` on, if there is one."""

    event_id: UUID
    price: PricePublished
    replaced: PricePublished | None

    @property
    def lost_names(self) -> list[str]:
        """The names by which calls find the replaced price and not this one; a prefix ends in `*`."""
        before, price = self.replaced, self.price
        if before is None:
            return []
        prefixes = tuple(price.prefixes or ())
        names = [name for name in before.names or () if name not in (price.model, *(price.names or ()))]
        names = [name for name in names if not name.startswith(prefixes)]
        return names + [f"{prefix}*" for prefix in before.prefixes or () if not prefix.startswith(prefixes)]


def price_changes(wanted: Iterable[PricePublished], book: PriceBook) -> Iterator[PriceChange]:
    """Compare prices of one source with those in the log.

    A price that another source published, or that was withdrawn, is kept: a negotiated price is not overwritten by a
    list price. A price of this source that the list no longer has is kept too: old calls were charged by it.

    Args:
        wanted: The prices of the source.
        book: The prices in the log.

    Yields:
        What has to be published so that the log says the same as the source.
    """
    streams: dict[UUID, list[PricePublished]] = {}
    for price in wanted:
        streams.setdefault(price.stream_id, []).append(price)
    recorded: dict[UUID, set[datetime]] = {}
    for found in book.values():
        recorded.setdefault(found.stream_id, set()).add(found.effective_from)
    for stream_id, prices in streams.items():
        prices.sort(key=lambda price: price.effective_from)
        times = {price.effective_from for price in prices} | recorded.get(stream_id, set())
        yield from _stream_changes(stream_id, prices, sorted(times), book)


def explicit_changes(wanted: Iterable[PricePublished], book: PriceBook) -> Iterator[PriceChange]:
    """Compare prices that an operator gives with those in the log: each replaces what is there, of any source.

    Args:
        wanted: The prices of a file.
        book: The prices in the log.

    Yields:
        The prices that the log does not have.
    """
    for price in wanted:
        found = book.in_force(price.stream_id, price.effective_from)
        if found is None or found.effective_from != price.effective_from or found.price != price:
            yield _change(price, found)


def _stream_changes(
    stream_id: UUID, prices: list[PricePublished], times: list[datetime], book: PriceBook
) -> Iterator[PriceChange]:
    """Yield the changes of one stream, at the times at which the source or the log has a price.

    Args:
        stream_id: The stream.
        prices: What the source says, by time.
        times: When to compare.
        book: The prices in the log.
    """
    said: PricePublished | None = None
    for at in times:
        price, found = _in_force(prices, at), book.in_force(stream_id, at)
        if said is not None and found is not None and found.effective_from <= said.effective_from:
            # What this import publishes is in force, not what it replaces.
            found = book.entry(found.position, stream_id, said)
        if price is None or not _may_replace(found, price) or (found and found.price and _says(found.price, price)):
            continue
        said = msgspec.structs.replace(price, effective_from=at)
        yield _change(said, found)


def _in_force(prices: list[PricePublished], at: datetime) -> PricePublished | None:
    return next((price for price in reversed(prices) if price.effective_from <= at), None)


def _may_replace(found: BookPrice | None, price: PricePublished) -> bool:
    return found is None or (found.price is not None and found.price.source.name == price.source.name)


def _says(price: PricePublished, other: PricePublished) -> bool:
    """Whether two prices say the same, whatever their times and the versions of their source."""
    return msgspec.structs.replace(price, effective_from=other.effective_from, source=other.source) == other


def _change(price: PricePublished, found: BookPrice | None) -> PriceChange:
    """Derive the event's id from what it says and what it replaces: a second import at once adds nothing."""
    data, _ = dump(price)
    replaced = "" if found is None else str(found.position)
    return PriceChange(uuid5(price.stream_id, f"{replaced}\n{data.decode()}"), price, found.price if found else None)
