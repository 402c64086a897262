"""Every price of genai-prices: the price book finds the same model and the same cost.

`LEDGER_TEST_USAGES=1000` compares that many usages of each model at each date; a table names the models that differ.
"""

import os
import random
from collections import Counter
from collections.abc import Iterator
from uuid import UUID

import pytest

from ledger.domain.price import PricePublished
from ledger.domain.price_book import PriceBook, PriceKey
from ledger.prices.genai_prices import LibraryPrices, library_prices
from tests.prices.library_usages import dates_of, library_cost, library_model, model_of, random_usage

USAGES = int(os.environ.get("LEDGER_TEST_USAGES", "7"))
"""Usages of each model, service tier and date."""


@pytest.fixture(scope="module")
def library() -> LibraryPrices:
    return library_prices()


@pytest.fixture(scope="module")
def streams(library: LibraryPrices) -> dict[UUID, list[PricePublished]]:
    streams: dict[UUID, list[PricePublished]] = {}
    for price in library.prices:
        streams.setdefault(price.stream_id, []).append(price)
    return streams


@pytest.fixture(scope="module")
def book(library: LibraryPrices) -> PriceBook:
    book = PriceBook()
    for position, price in enumerate(library.prices, 1):
        book.add(position, price.stream_id, price)
    return book


def test_every_cost_equals_that_of_the_library(streams: dict[UUID, list[PricePublished]], book: PriceBook) -> None:
    differences: Counter[str] = Counter()
    compared = 0
    for stream_id, prices in streams.items():
        draw = random.Random(str(stream_id))
        for at in dates_of(prices):
            found = book.in_force(stream_id, at)
            assert found is not None
            assert found.price is not None
            for _ in range(USAGES):
                usage = random_usage(draw, found.price)
                ours, theirs = found.table.cost_of(usage), library_cost(found.price, usage, at)
                compared += 1
                if ours != theirs:
                    differences[f"{found.price.provider}/{found.price.model} {found.price.service_tier}"] += 1

    print(f"{compared:,} costs of {len(streams):,} models and service tiers compared; these differ:")
    for name, count in sorted(differences.items()):
        print(f"  {name}: {count}")
    assert compared == 3 * USAGES * len(streams)
    assert not differences


def names_and_continuations(price: PricePublished) -> Iterator[str]:
    """Yield all names of a price, and names that only its prefixes match."""
    yield price.model
    yield from price.names or ()
    for prefix in price.prefixes or ():
        yield prefix
        yield f"{prefix}-2099-01-31"
        yield f"{prefix}x"


def test_a_name_finds_the_model_that_the_library_finds(library: LibraryPrices, book: PriceBook) -> None:
    wrong = []
    for price in library.prices:
        for name in names_and_continuations(price):
            key = PriceKey(price.provider, name, "standard", "USD")
            found, theirs = book.find(key, price.effective_from), library_model(price, name)
            # The library's own id of a model matches none of its clauses in some cases.
            if (found is None or found.price is None) or (
                theirs is not model_of(found.price) and not (theirs is None and name == price.model)
            ):
                wrong.append((price.provider, name, found and found.key.model, theirs and theirs.id))

    assert not wrong


def test_a_name_that_the_library_knows_and_the_price_book_does_not_was_left_out(
    library: LibraryPrices, book: PriceBook
) -> None:
    left_out = {(item.provider, item.model) for item in library.left_out if item.part == "model"}
    imported = {(price.provider, price.model) for price in library.prices}

    assert not left_out & imported
    assert len(imported) > 2_000
