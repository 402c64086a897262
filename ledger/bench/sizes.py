"""The sizes and durations of a benchmark run: full, or quick to show that everything can be measured."""

import msgspec


class Sizes(msgspec.Struct, frozen=True):
    """How many rounds, seconds, rows and events a run takes."""

    rounds: int
    """In each round, control and work take turns."""
    seconds: int
    """Duration of the load in a round."""
    warm_up_seconds: int
    copied_events: int
    """Rows that a control copies in a round."""
    catch_up_events: int
    log_events: int
    """Events of the log that is replayed, sealed, read, and used as the long log of `growth`."""
    young_log_events: int
    """Events of the short log that `growth` compares with."""
    visible_seconds: int
    long_entry_adjustments: int
    """Adjustments of the entry that `bounded` appends to."""
    ended_jobs: int
    """Jobs with ten holds each that `bounded` ends in one request."""
    holds_of_one_job: int


FULL = Sizes(
    rounds=5,
    seconds=4,
    warm_up_seconds=2,
    copied_events=100_000,
    catch_up_events=200_000,
    log_events=1_000_000,
    young_log_events=100_000,
    visible_seconds=4,
    long_entry_adjustments=450_000,
    ended_jobs=3_000,
    holds_of_one_job=130_000,
)

QUICK = Sizes(
    rounds=2,
    seconds=1,
    warm_up_seconds=1,
    copied_events=10_000,
    catch_up_events=15_000,
    log_events=20_000,
    young_log_events=5_000,
    visible_seconds=1,
    long_entry_adjustments=4_000,
    ended_jobs=30,
    holds_of_one_job=1_300,
)

GROWTH_ONLY_LOG_EVENTS = 5_000_000
"""Events of the long log if `growth` is the only figure requested."""
