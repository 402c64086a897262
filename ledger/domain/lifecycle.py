"""Status transitions: the statuses in which an event is possible, and the status that it leads to."""

from typing import NamedTuple

DELETED = "deleted"


class Transition(NamedTuple):
    """The from and to columns of one row of the catalogue of event types."""

    allowed_from: tuple[str, ...]
    """Empty for an event that opens a stream."""

    to: str | None = None
    """None if the status does not change."""


def either(statuses: tuple[str, ...]) -> str:
    """Write statuses as "draft, active or paused"."""
    return statuses[0] if len(statuses) == 1 else f"{', '.join(statuses[:-1])} or {statuses[-1]}"
