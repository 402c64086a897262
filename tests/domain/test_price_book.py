"""The price book finds prices like a search through all price events, also after roll-backs."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
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
    book = book_of(("a", published("a-1")), ("b", published("b", prefixes=["a-"])))
    book = book_of(("a-1", published("a-1")), ("b", published("b", prefixes=["a-"])), ("a-1", withdrawn(2)))

    assert [found(book, "a-1", hour) for hour in (1, 2)] == [1, None]
    assert found(book, "a-2", 2) == 2


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
    """Look for the price of a call in all events."""
    at = NOON + timedelta(hours=hour)
    in_force = []
    for name in MODELS:
        of_stream = [event for event in events if event[1] == stream(name) and event[2].effective_from <= at]
        if of_stream:
            in_force.append((name, max(of_stream, key=lambda event: (event[2].effective_from, event[0]))))

    def winner(matching: list[Event]) -> Event | None:
        return max(matching, key=lambda event: (event[2].effective_from, event[0]), default=None)

    exact = winner(
        [event for name, event in in_force if name == model or model in (getattr(event[2], "names", None) or ())]
    )
    if exact is not None:
        return exact[0] if isinstance(exact[2], PricePublished) else None
    for length in range(len(model), 0, -1):
        matching = [event for _, event in in_force if model[:length] in (getattr(event[2], "prefixes", None) or ())]
        if (longest := winner(matching)) is not None:
            return longest[0]
    return None


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
