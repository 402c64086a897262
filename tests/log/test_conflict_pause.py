"""The pause of the optimistic path: it doubles while conflicts continue, and later starts anew."""

from ledger.log.conflict_pause import PAUSE_SECONDS_MAX, PAUSE_SECONDS_MIN, ConflictPause


def seconds(pause: ConflictPause, began: float) -> float:
    """Return how long a pause lasts, to the millisecond."""
    return next(step / 1000 for step in range(10_000) if pause.is_over(began + step / 1000))


def test_there_is_no_pause_before_the_first_conflict() -> None:
    assert ConflictPause().is_over(0.0)


def test_the_pause_doubles_up_to_a_maximum_while_each_conflict_follows_a_pause_at_once() -> None:
    pause, now, lengths = ConflictPause(), 100.0, []

    for _ in range(8):
        pause.start(now)
        lengths.append(seconds(pause, now))
        now += lengths[-1]

    doubled = [min(PAUSE_SECONDS_MAX, PAUSE_SECONDS_MIN * 2**number) for number in range(8)]
    assert all(abs(length - expected) < 0.002 for length, expected in zip(lengths, doubled, strict=True))


def test_a_conflict_during_a_pause_does_not_prolong_it() -> None:
    pause = ConflictPause()
    pause.start(100.0)

    pause.start(100.01)

    assert seconds(pause, 100.0) <= PAUSE_SECONDS_MIN + 0.001


def test_a_conflict_long_after_the_last_pause_starts_with_the_shortest() -> None:
    pause, now = ConflictPause(), 100.0
    for _ in range(5):
        pause.start(now)
        now += seconds(pause, now)

    pause.start(now + PAUSE_SECONDS_MAX)

    assert seconds(pause, now + PAUSE_SECONDS_MAX) <= PAUSE_SECONDS_MIN + 0.001


def test_a_lone_writer_is_never_paused_for_more_than_two_seconds() -> None:
    pause = ConflictPause()
    for number in range(100):
        pause.start(number * 0.01)

    assert pause.is_over(99 * 0.01 + 2.0)
