"""How much is measured: a whole run, and a quick one that only shows that everything can be measured."""

import msgspec


class Plan(msgspec.Struct, frozen=True):
    """Sizes and times of a run."""

    rounds: int
    """In each, control and work take turns."""
    seconds: int
    """Of load in a round."""
    warm_up_seconds: int
    copied_events: int
    """Rows that a control copies in a round."""
    catch_up_events: int
    log_events: int
    """Events of the log that is replayed, sealed, read and grown."""
    young_log_events: int
    """Events of the log that growth is measured against."""
    visible_seconds: int


WHOLE = Plan(
    rounds=5,
    seconds=4,
    warm_up_seconds=2,
    copied_events=100_000,
    catch_up_events=200_000,
    log_events=1_000_000,
    young_log_events=100_000,
    visible_seconds=4,
)

QUICK = Plan(
    rounds=2,
    seconds=1,
    warm_up_seconds=1,
    copied_events=10_000,
    catch_up_events=15_000,
    log_events=20_000,
    young_log_events=5_000,
    visible_seconds=1,
)

GROWN_EVENTS = 5_000_000
"""What a log grows to where only growth is asked for."""
