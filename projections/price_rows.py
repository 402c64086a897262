"""Rows of the table `prices` in memory: a row for each price event, also by stream."""

from bisect import insort_right
from collections.abc import Iterable, Sequence
from datetime import datetime
from operator import attrgetter
from uuid import UUID

from projections.rows import Row, Rows


class PriceRow(Row, kw_only=True):
    """A row of `prices`; `names`, `prefixes`, `rates`, `tiers` and `source` are JSON text."""

    stream_id: UUID
    price_position: int
    provider: str
    model: str
    names: str
    prefixes: str
    service_tier: str
    currency: str
    per: int
    rates: str
    tiers: str
    effective_from: datetime
    effective_to: datetime | None = None
    withdrawn: bool
    source: str | None
    actor: str


_order = attrgetter("effective_from", "price_position")


class PriceRows(Rows[PriceRow]):
    """Rows of `prices`, also by stream, in the order in which they apply."""

    def __init__(self, loaded: Iterable[PriceRow] = ()) -> None:
        rows = sorted(loaded, key=_order)
        super().__init__(rows)
        self._streams: dict[UUID, list[PriceRow]] = {}
        for row in rows:
            self._streams.setdefault(row.stream_id, []).append(row)

    def of_stream(self, stream_id: UUID) -> Sequence[PriceRow]:
        """Return the rows of a stream. If several apply from the same time on, only the last of them counts."""
        return self._streams.get(stream_id, ())

    def add(self, row: PriceRow) -> None:
        """Add a new row."""
        super().add(row)
        insort_right(self._streams.setdefault(row.stream_id, []), row, key=_order)
