"""`PriceBook`: all prices by the position of their event, and the look-up of the price of a call."""

from bisect import bisect_left, bisect_right, insort
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple, Self, TypeVar
from uuid import UUID

import msgspec

from ledger.domain.codec import InvalidFieldError
from ledger.domain.price import PricePublished, PriceWithdrawn
from ledger.domain.pricing import PriceTable

WEIGHT_MAX = 100_000
"""The most prices, names, prefixes and tiers of a book to which new prices are added: about 90 MB in each process."""

WITHDRAWALS_MAX = 10_000
"""What withdrawals may add to that."""


class PriceKey(NamedTuple):
    """Whose price it is; a model has one stream of prices for each."""

    provider: str
    model: str
    service_tier: str
    currency: str

    @property
    def market(self) -> "Market":
        """The key without the model."""
        return self.provider, self.service_tier, self.currency


Market = tuple[str, str, str]
"""Provider, service tier and currency: only prices with the same three can be prices of one call."""


class BookPrice(msgspec.Struct, gc=False):
    """A price event as the book keeps it: what its stream says from `effective_from` on."""

    effective_from: datetime
    position: int
    stream_id: UUID
    key: PriceKey
    price: PricePublished | None
    """None if the price was withdrawn."""
    prepared: PriceTable | None = None

    @property
    def order(self) -> tuple[datetime, int]:
        """Of two prices of a model, the one that counts is the later one in this order."""
        return self.effective_from, self.position

    @property
    def table(self) -> PriceTable:
        """The price, prepared once: most prices of a book are never used."""
        if self.prepared is None:
            assert self.price is not None, "a withdrawn price has no rates"
            self.prepared = PriceTable(self.price)
        return self.prepared

    @property
    def weight(self) -> int:
        """How much of the book it takes, in units of `WEIGHT_MAX`."""
        return weight_of(self.price)

    def is_for(self, key: PriceKey) -> bool:
        """Whether it may be the price of a call, apart from its time."""
        if key.market != self.key.market:
            return False
        prefixes = (self.price.prefixes or ()) if self.price is not None else ()
        return self.has_name(key.model) or any(key.model.startswith(prefix) for prefix in prefixes)

    def has_name(self, model: str) -> bool:
        """Whether it is the price of a model of this name."""
        return model == self.key.model or (self.price is not None and model in (self.price.names or ()))

    def has_prefix(self, prefix: str) -> bool:
        """Whether it is the price of all models whose names begin like this."""
        return self.price is not None and prefix in (self.price.prefixes or ())


def weight_of(price: PricePublished | None) -> int:
    """Return how much of a book a price takes, in units of `WEIGHT_MAX`; None is a withdrawal."""
    lists = (price.names, price.prefixes, price.tiers) if price is not None else ()
    return 1 + sum(len(each) for each in lists if each)


_effective_from = attrgetter("effective_from")
_order = attrgetter("order")

_Index = dict[tuple[Market, str], dict[UUID, int]]
"""By market and name or prefix: the streams, and how many of their prices have it."""


class PriceBook(dict[int, BookPrice]):
    """Prices by position. The indexes are kept by item assignment and `pop`; use no other method to change it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = 0
        self._streams: dict[UUID, list[BookPrice]] = {}
        # The streams whose lists no other book shares.
        self._own: set[UUID] = set()
        self._by_name: _Index = {}
        self._by_prefix: _Index = {}
        self._prefix_lengths: dict[Market, dict[int, int]] = {}
        """The lengths of the prefixes, the longest first, and how many prefixes of `_by_prefix` have each."""

    def clone(self) -> Self:
        """Return a book that can be changed separately. Both share their values, and copy a list before a change."""
        clone = type(self)()
        self._own = set()
        dict.update(clone, self)
        clone.weight = self.weight
        clone._streams = dict(self._streams)
        clone._by_name = dict(self._by_name)
        clone._by_prefix = dict(self._by_prefix)
        clone._prefix_lengths = dict(self._prefix_lengths)
        return clone

    def add(self, position: int, stream_id: UUID, payload: PricePublished | PriceWithdrawn) -> None:
        """Add a price event of the log."""
        self[position] = self.entry(position, stream_id, payload)

    def entry(self, position: int, stream_id: UUID, payload: PricePublished | PriceWithdrawn) -> BookPrice:
        """Return a price event as the book keeps it. A withdrawal needs a price of its stream in the book."""
        if isinstance(payload, PriceWithdrawn):
            return BookPrice(payload.effective_from, position, stream_id, self._streams[stream_id][0].key, None)
        key = PriceKey(payload.provider, payload.model, str(payload.service_tier), str(payload.currency))
        return BookPrice(payload.effective_from, position, stream_id, key, payload)

    def require_room(self, price: PricePublished | None) -> None:
        """Raise `InvalidFieldError` if the book is too full for a new price; None is a withdrawal."""
        weight_max = WEIGHT_MAX if price is not None else WEIGHT_MAX + WITHDRAWALS_MAX
        if self.weight + weight_of(price) > weight_max:
            detail = f"the price book is full: it has {self.weight:,} prices, names, prefixes and tiers, the most are"
            raise InvalidFieldError("effective_from", f"{detail} {weight_max:,}")

    def find(self, key: PriceKey, at: datetime) -> BookPrice | None:
        """Find the price of a call.

        A price whose model or one of whose names is that of the call goes before one that has a prefix of it, and the
        longest prefix before shorter ones. Of several prices the one with the latest `effective_from` counts, and of
        those the one that was published last. A withdrawal counts as a price with the names and the prefixes of the
        one that it ends: the call has no price then, and is not charged by that of another model.

        Args:
            key: Provider, model as the call reports it, service tier and currency.
            at: The time of the call.

        Returns:
            The price; None if there is none, or if it was withdrawn.
        """
        found = self._latest(self._by_name, key.market, key.model, at)
        if found is None:
            for length in self._prefix_lengths.get(key.market, ()):
                found = self._latest(self._by_prefix, key.market, key.model[:length], at)
                if found is not None:
                    break
        return found if found is not None and found.price is not None else None

    def _latest(self, index: _Index, market: Market, text: str, at: datetime) -> BookPrice | None:
        latest: BookPrice | None = None
        for stream_id in index.get((market, text), ()):
            price = self.in_force(stream_id, at)
            if price is None or (latest is not None and price.order < latest.order):
                continue
            named = price if price.price is not None else self._ended_by(price)
            if named.has_name(text) if index is self._by_name else named.has_prefix(text):
                latest = price
        return latest

    def _ended_by(self, withdrawal: BookPrice) -> BookPrice:
        """Return the price that a withdrawal ends; the withdrawal itself if there is none."""
        prices = self._streams[withdrawal.stream_id]
        before = range(bisect_left(prices, withdrawal.order, key=_order) - 1, -1, -1)
        return next((prices[index] for index in before if prices[index].price is not None), withdrawal)

    def in_force(self, stream_id: UUID, at: datetime) -> BookPrice | None:
        """Return what a stream says at a time; None if that is before its first price."""
        prices = self._streams.get(stream_id, ())
        count = bisect_right(prices, at, key=_effective_from)
        return prices[count - 1] if count else None

    def __setitem__(self, position: int, price: BookPrice) -> None:
        super().__setitem__(position, price)
        insort(self._own_list(price.stream_id), price, key=_order)
        self._count(price, 1)

    def pop(self, position: int, default: Any = None) -> Any:
        """Remove a price and return it, or the default if there is none."""
        price = super().pop(position, None)
        if price is None:
            return default
        prices = self._own_list(price.stream_id)
        del prices[bisect_left(prices, price.order, key=_order)]
        if not prices:
            del self._streams[price.stream_id]
            self._own.discard(price.stream_id)
        self._count(price, -1)
        return price

    def _own_list(self, stream_id: UUID) -> list[BookPrice]:
        """Return the prices of a stream, to be changed."""
        if stream_id not in self._own:
            self._own.add(stream_id)
            self._streams[stream_id] = list(self._streams.get(stream_id, ()))
        return self._streams[stream_id]

    def _count(self, price: BookPrice, change: int) -> None:
        """Add a price to the indexes (1) or remove it (-1). A withdrawal has no names of its own."""
        self.weight += change * price.weight
        if price.price is None:
            return
        market = price.key.market
        for name in {price.key.model, *(price.price.names or ())}:
            _count_in(self._by_name, (market, name), price.stream_id, change)
        for prefix in set(price.price.prefixes or ()):
            streams_before = len(self._by_prefix.get((market, prefix), ()))
            _count_in(self._by_prefix, (market, prefix), price.stream_id, change)
            if not streams_before or (market, prefix) not in self._by_prefix:
                _count_in(self._prefix_lengths, market, len(prefix), change)
                self._sort_lengths(market)

    def _sort_lengths(self, market: Market) -> None:
        if market in self._prefix_lengths:
            self._prefix_lengths[market] = dict(sorted(self._prefix_lengths[market].items(), reverse=True))


_Key = TypeVar("_Key")
_Counted = TypeVar("_Counted")


def _count_in(counters: dict[_Key, dict[_Counted, int]], key: _Key, counted: _Counted, change: int) -> None:
    """Change a count by 1 or -1, without zeros. Other books share the inner dictionaries, so they are copied."""
    counts = dict(counters.get(key, ()))
    counts[counted] = counts.get(counted, 0) + change
    if not counts[counted]:
        del counts[counted]
    if counts:
        counters[key] = counts
    else:
        counters.pop(key, None)
