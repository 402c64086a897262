"""The pause of the optimistic path after a conflict; it doubles while conflicts continue."""

PAUSE_SECONDS_MIN = 0.05
PAUSE_SECONDS_MAX = 2.0


class ConflictPause:
    """Decides when the optimistic path may be used again. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._until = 0.0

    def start(self, now: float) -> None:
        """Start a pause after a conflict: twice as long as the last one if that ended only recently.

        A conflict during a pause changes nothing: the load and the write of one group may both see it.
        """
        if now < self._until:
            return
        is_repeated = now - self._until < self._seconds
        self._seconds = min(PAUSE_SECONDS_MAX, 2 * self._seconds) if is_repeated else PAUSE_SECONDS_MIN
        self._until = now + self._seconds

    def is_over(self, now: float) -> bool:
        """Whether the optimistic path may be used."""
        return now >= self._until
