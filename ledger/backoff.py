"""Exponential back-off: the delay before each retry, from a first value by a factor up to a maximum."""

from math import inf


class Backoff:
    """The delays of successive waits; `next` returns one and lengthens the following, `reset` starts over."""

    def __init__(self, first: float, maximum: float = inf, *, factor: float = 2.0) -> None:
        """Make a back-off.

        Args:
            first: the first delay, in seconds.
            maximum: the longest delay, in seconds.
            factor: the growth from one delay to the next.
        """
        self._first = first
        self._maximum = maximum
        self._factor = factor
        self._delay = first

    def next(self, maximum: float = inf) -> float:
        """Return the delay to wait now, in seconds; `maximum` bounds this one, and growth continues from there."""
        delay = min(self._delay, self._maximum, maximum)
        self._delay = delay * self._factor
        return delay

    def reset(self) -> None:
        """Start over with the first delay; call it after a success."""
        self._delay = self._first
