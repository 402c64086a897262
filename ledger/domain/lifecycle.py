"""Which statuses an event may happen in, and the status it leads to."""

from typing import NamedTuple

from ledger.domain.errors import IllegalTransition

DELETED = "deleted"


class Transition(NamedTuple):
    """One row of the catalogue's from → to column.

    `allowed_from` is empty for the event that opens a stream; `to` is None where the status stays.
    """

    allowed_from: tuple[str, ...]
    to: str | None = None

    @property
    def opens(self) -> bool:
        return not self.allowed_from

    def require_stream(self, event_type: str, status: str | None) -> None:
        """Raise `IllegalTransition` where a first event meets a stream, or a later one meets none.

        Args:
            event_type: named in the message.
            status: the stream's status now, None where the stream does not exist.
        """
        if self.opens and status is not None:
            raise IllegalTransition(
                f"{event_type} opens a stream, but this one exists already and is {status}", status, ()
            )
        if not self.opens and status is None:
            raise IllegalTransition(f"{event_type} follows on a stream that does not exist", None, self.allowed_from)

    def require_status(self, event_type: str, status: str | None) -> None:
        """Raise `IllegalTransition` where a later event may not happen in this status."""
        if not self.opens and status not in self.allowed_from:
            raise IllegalTransition(
                f"{event_type} is not possible while {status}, only while {either(self.allowed_from)}",
                status,
                self.allowed_from,
            )


def either(statuses: tuple[str, ...]) -> str:
    """Write "draft, active or paused"."""
    return statuses[0] if len(statuses) == 1 else f"{', '.join(statuses[:-1])} or {statuses[-1]}"
