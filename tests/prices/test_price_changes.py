"""What an import changes: nothing the second time, and no price of another source."""

from datetime import UTC, datetime
from decimal import Decimal

from ledger.domain.price import PricePublished, PriceWithdrawn, Rates, Source
from ledger.domain.price_book import PriceBook
from ledger.prices.price_changes import PriceChange, explicit_changes, price_changes

JANUARY, FEBRUARY, MARCH = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 2, 3))


def price(rate: str, since: datetime = JANUARY, *, source: str = "list", version: str = "1") -> PricePublished:
    rates = Rates(input_tokens=Decimal(rate))
    origin = Source(name=source, version=version)
    return PricePublished(provider="openai", model="gpt", rates=rates, effective_from=since, source=origin)


def book_of(*events: PricePublished | PriceWithdrawn) -> PriceBook:
    book = PriceBook()
    for position, event in enumerate(events, 1):
        book.add(position, price("1").stream_id, event)
    return book


def published(changes: list[PriceChange]) -> list[tuple[str, datetime]]:
    return [(str(change.price.rates.input_tokens), change.price.effective_from) for change in changes]


def test_a_second_import_adds_nothing_also_with_another_version_of_the_source() -> None:
    prices = [price("1"), price("2", FEBRUARY)]
    newer = [price("1", version="2"), price("2", FEBRUARY, version="2")]

    assert published(list(price_changes(prices, PriceBook()))) == [("1", JANUARY), ("2", FEBRUARY)]
    assert not list(price_changes(prices, book_of(*prices)))
    assert not list(price_changes(newer, book_of(*prices)))


def test_two_imports_at_once_send_the_same_events() -> None:
    first, second = (list(price_changes([price("1")], PriceBook())) for _ in range(2))

    assert [change.event_id for change in first] == [change.event_id for change in second]


def test_a_changed_price_is_published_and_a_price_that_comes_back_is_another_event() -> None:
    (changed,) = price_changes([price("2")], book_of(price("1")))
    (back,) = price_changes([price("1")], book_of(price("1"), price("2")))

    assert (changed.price.rates.input_tokens, changed.replaced) == (2, price("1"))
    assert (
        len({back.event_id, changed.event_id, *(each.event_id for each in price_changes([price("1")], PriceBook()))})
        == 3
    )


def test_a_change_that_the_source_now_dates_later_is_corrected_for_the_time_between() -> None:
    recorded = book_of(price("1"), price("2", FEBRUARY))

    assert published(list(price_changes([price("1"), price("2", MARCH)], recorded))) == [
        ("1", FEBRUARY),
        ("2", MARCH),
    ]


def test_a_price_that_the_source_no_longer_has_is_kept() -> None:
    assert not list(price_changes([], book_of(price("1"))))


def test_a_negotiated_and_a_withdrawn_price_are_kept() -> None:
    negotiated = book_of(price("1"), price("0.5", FEBRUARY, source="contract"))
    withdrawn = book_of(price("1"), PriceWithdrawn(effective_from=FEBRUARY))

    for recorded in (negotiated, withdrawn):
        assert not list(price_changes([price("1"), price("3", MARCH)], recorded))


def test_a_file_replaces_prices_of_any_source_once() -> None:
    negotiated = price("0.5", FEBRUARY, source="contract")

    assert published(list(explicit_changes([negotiated], book_of(price("1"))))) == [("0.5", FEBRUARY)]
    assert not list(explicit_changes([negotiated], book_of(price("1"), negotiated)))
    assert published(list(explicit_changes([price("1")], book_of(price("1"), price("2"))))) == [("1", JANUARY)]
