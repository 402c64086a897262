"""Back-off: delays grow by a factor up to a maximum, and start over after a success."""

from ledger.backoff import Backoff


def test_delays_grow_by_the_factor_up_to_the_maximum() -> None:
    backoff = Backoff(1.0, 10.0, factor=3.0)

    assert [backoff.next() for _ in range(5)] == [1.0, 3.0, 9.0, 10.0, 10.0]


def test_a_reset_starts_over_with_the_first_delay() -> None:
    backoff = Backoff(0.5)
    delays = [backoff.next(), backoff.next()]

    backoff.reset()

    assert [*delays, backoff.next()] == [0.5, 1.0, 0.5]


def test_a_lower_maximum_bounds_one_delay_and_growth_continues_from_there() -> None:
    backoff = Backoff(1.0, 600.0)

    assert [backoff.next(1.0), backoff.next(1.0), backoff.next(600.0), backoff.next(600.0)] == [1.0, 1.0, 2.0, 4.0]
