"""The price book finds prices like a search through all price events, also after roll-backs."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.price import PricePublished, PriceWithdrawn, Rates, Source, price_stream
from ledger.domain.price_book import PriceBook, PriceKey

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

Event = tuple[int, UUID, PricePublished | PriceWithdrawn]


def published(
    model: str, hour: int = 0, *, names: list[str] | None = None, prefixes: list[str] | None = None
) -> PricePublished:
    return PricePublished(
        provider="p",
        model=model,
        names=names,
        prefixes=prefixes,
        rates=Rates(input_tokens=Decimal(1)),
        effective_from=NOON + timedelta(hours=hour),
        source=Source(name="test", version="1"),
    )


def stream(model: str) -> UUID:
    return price_stream("p", model, None, None)


def withdrawn(hour: int) -> PriceWithdrawn:
    return PriceWithdrawn(effective_from=NOON + timedelta(hours=hour))


def book_of(*payloads: tuple[str, PricePublished | PriceWithdrawn]) -> PriceBook:
    book = PriceBook()
    for position, (model, payload) in enumerate(payloads, 1):
        book.add(position, stream(model), payload)
    return book


def found(book: PriceBook, model: str, hour: int = 0) -> int | None:
    price = book.find(PriceKey("p", model, "standard", "USD"), NOON + timedelta(hours=hour))
    return price.position if price else None


def test_the_latest_price_that_is_in_force_counts() -> None:
    book = book_of(("a", published("a", 0)), ("a", published("a", 4)), ("a", published("a", 2)))

    assert [found(book, "a", hour) for hour in (-1, 0, 1, 2, 3, 4, 5)] == [None, 1, 1, 3, 3, 2, 2]


def test_of_two_prices_from_the_same_time_on_the_later_event_counts() -> None:
    assert found(book_of(("a", published("a")), ("a", published("a"))), "a") == 2


def test_an_exact_name_goes_before_a_prefix_and_a_long_prefix_before_a_short_one() -> None:
    book = book_of(
        ("a", published("a", 3, prefixes=["gpt-"])),
        ("b", published("b", 2, prefixes=["gpt-4"])),
        ("c", published("c", 1, names=["gpt-4-turbo"])),
    )

    assert [found(book, model, 5) for model in ("gpt-3", "gpt-4-2024", "gpt-4-turbo", "gp")] == [1, 2, 3, None]


def test_a_withdrawn_price_is_not_replaced_by_that_of_a_prefix() -> None:
    book = book_of(("a-1", published("a-1")), ("b", published("b", prefixes=["a-"])), ("a-1", withdrawn(2)))

    assert [found(book, "a-1", hour) for hour in (1, 2)] == [1, None]
    assert found(book, "a-2", 2) == 2


def test_a_withdrawal_keeps_the_names_and_the_prefixes_of_the_price_that_it_ends() -> None:
    book = book_of(
        ("cheap", published("cheap", names=["other-alias"], prefixes=["gpt-4o"])),
        ("dear", published("dear", prefixes=["gpt-4", "other"])),
        ("cheap", withdrawn(2)),
    )

    for model in ("gpt-4o-2024", "other-alias"):
        assert [found(book, model, hour) for hour in (1, 2)] == [1, None]
    assert found(book, "gpt-4-turbo", 2) == 2


def test_a_price_published_between_another_and_its_withdrawal_is_the_one_that_ends() -> None:
    book = book_of(
        ("a", published("a", names=["old"])),
        ("b", published("b", prefixes=["old", "new"])),
        ("a", withdrawn(4)),
        ("a", published("a", 2, names=["new"])),
    )

    assert [found(book, "old", hour) for hour in (0, 2, 4)] == [1, 2, 2]
    assert [found(book, "new", hour) for hour in (0, 2, 4)] == [2, 4, None]


def test_only_prefixes_of_lengths_that_the_book_has_are_looked_up() -> None:
    book = book_of(
        ("a", published("a", prefixes=["ab", "cd"])),
        ("b", published("b", prefixes=["a" * 40])),
        ("a", published("a", 1, prefixes=["ab"])),
    )
    looked_up: list[str] = []

    class Spied(dict[Any, Any]):
        def get(self, key: Any, default: Any = None) -> Any:
            looked_up.append(key[1])
            return super().get(key, default)

    book._by_prefix = Spied(book._by_prefix)
    assert found(book, "ab" + "x" * 253, 2) == 3
    assert looked_up == ["ab" + "x" * 38, "ab"]
    assert found(book, "a" * 255) == 2

    for position in (3, 2):
        book.pop(position)
    looked_up.clear()
    assert found(book, "xy" + "x" * 253) is None
    assert looked_up == ["xy"]


def test_a_price_that_is_published_after_a_withdrawal_counts_again() -> None:
    book = book_of(("a", published("a")), ("a", withdrawn(1)), ("a", published("a", 3)))

    assert [found(book, "a", hour) for hour in (0, 1, 2, 3)] == [1, None, None, 3]


def test_a_clone_changes_separately() -> None:
    book = book_of(("a", published("a")))
    clone = book.clone()

    clone.add(2, stream("a"), published("a"))
    clone.add(3, stream("b"), published("b", names=["a"]))

    assert (found(book, "a"), found(clone, "a")) == (1, 3)
    assert list(book) == [1]
    book.add(4, stream("a"), published("a"))
    clone.pop(3)
    assert (found(book, "a"), found(clone, "a")) == (4, 2)


MODELS = ["a", "ab", "abc"]


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    events: list[Event] = []
    opened: set[str] = set()
    for position in range(1, draw(st.integers(1, 12)) + 1):
        model, hour = draw(st.sampled_from(MODELS)), draw(st.integers(0, 4))
        if model in opened and draw(st.integers(0, 3)) == 0:
            events.append((position, stream(model), withdrawn(hour)))
            continue
        opened.add(model)
        names, prefixes = (draw(st.lists(st.sampled_from(MODELS), max_size=2, unique=True)) or None for _ in range(2))
        events.append((position, stream(model), published(model, hour, names=names, prefixes=prefixes)))
    return events


def search(events: list[Event], model: str, hour: int) -> int | None:
    """Look for the price of a call in all events: replay each stream by time, and compare what matches."""
    at = NOON + timedelta(hours=hour)
    matching = []
    for name in MODELS:
        names, prefixes, last = {name}, set[str](), None
        for event in sorted(events, key=order):
            if event[1] != stream(name) or event[2].effective_from > at:
                continue
            last = event
            if isinstance(event[2], PricePublished):
                names, prefixes = {name, *(event[2].names or ())}, set(event[2].prefixes or ())
        longest = max((len(prefix) for prefix in prefixes if model.startswith(prefix)), default=0)
        if last is not None and (model in names or longest):
            matching.append((model in names, longest if model not in names else 0, order(last), last))
    if not matching:
        return None
    position, _, payload = max(matching)[3]
    return position if isinstance(payload, PricePublished) else None


def order(event: Event) -> tuple[datetime, int]:
    return event[2].effective_from, event[0]


@given(histories(), st.integers(0, 12))
def test_the_book_finds_what_a_search_finds_also_after_a_roll_back(events: list[Event], kept: int) -> None:
    book = PriceBook()
    for event in events:
        book.add(*event)
    for position, _, _ in reversed(events[kept:]):
        book.pop(position)

    for model in MODELS:
        for hour in range(-1, 6):
            assert found(book, model, hour) == search(events[:kept], model, hour)
    again = PriceBook()
    for event in events[:kept]:
        again.add(*event)
    assert vars(again) == vars(book)
