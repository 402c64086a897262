"""Prices in the terminal: one line a price, and the change that an import makes."""

from collections.abc import Iterable, Iterator
from typing import Any

from ledger.domain.codec import time_text
from ledger.domain.price import PricePublished, Rates
from ledger.domain.price_book import BookPrice
from ledger.prices.price_changes import PriceChange

COLUMNS = ("provider", "model", "tier", "currency", "input", "output", "cache read", "cache write", "since", "source")

SHOWN_NAMES = 5
"""Names in a warning."""


def price_view(found: BookPrice) -> dict[str, Any]:
    """Return a price of the book as JSON: its event's data and its position."""
    if found.price is None:
        withdrawn = {**found.key._asdict(), "effective_from": time_text(found.effective_from), "withdrawn": True}
        return withdrawn | {"position": found.position}
    return {"data": found.price, "position": found.position, "stream_id": found.stream_id}


def table_lines(prices: Iterable[BookPrice]) -> Iterator[str]:
    """Yield a heading and one line a price, in aligned columns; rates are for a million units."""
    rows = [COLUMNS, *map(_row, prices)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(COLUMNS))]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _row(found: BookPrice) -> tuple[str, ...]:
    key, price = found.key, found.price
    since = time_text(found.effective_from)[:10]
    head = (key.provider, key.model, key.service_tier, key.currency)
    if price is None:
        return (*head, "withdrawn", "", "", "", since, "")
    rates = price.rates.as_json()
    names = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
    shown = tuple(rates.pop(name, "") for name in names)
    more = ", ".join(f"{name} {rate}" for name, rate in rates.items())
    source = f"{price.source.name} {price.source.version}"
    return (*head, *shown, since, f"{source}; {more}" if more else source)


def change_line(change: PriceChange) -> str:
    """Return a price that an import publishes, and what it replaces, in one line."""
    price, replaced = change.price, change.replaced
    head = (
        f"{price.provider}/{price.model} {price.service_tier} {price.currency} from {time_text(price.effective_from)}"
    )
    if replaced is None:
        return f"+ {head}: {_rates(price)}"
    return f"~ {head}: {_rates(replaced)} -> {_rates(price)}"


def loss_line(change: PriceChange) -> str:
    """Return the warning that a price lacks names of the one that it replaces."""
    price, names = change.price, change.lost_names
    shown = ", ".join(names[:SHOWN_NAMES])
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return (
        f"Warning: {price.provider}/{price.model} loses the names {shown}{more} that the price before it has; calls "
        "that report them will be unpriced, unless another price has them"
    )


def _rates(price: PricePublished) -> str:
    tiers = "".join(f"; above {tier.above_input_tokens} {_texts(tier.rates)}" for tier in price.tiers or ())
    return f"{_texts(price.rates)}{tiers}"


def _texts(rates: Rates) -> str:
    return " ".join(f"{name}={rate}" for name, rate in rates.as_json().items())
