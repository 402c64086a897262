"""The tree of errors: every exception class of the project derives from `LedgerError`.

The first line of a class docstring is the error's title; attributes hold values that a program can act on.

Names: an error that clients receive as a problem type is named after it (`budget-exceeded`: `BudgetExceeded`), and so
are the bases of such errors; the name of any other error ends in `Error`. `ledger.api.problems` maps problem types to
HTTP statuses.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID


class LedgerError(Exception):
    """The ledger could not complete the operation."""

    slug = "internal-error"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    @property
    def title(self) -> str:
        """The first line of the class docstring, without its full stop."""
        return (type(self).__doc__ or "").strip().splitlines()[0].rstrip(".")

    @property
    def members(self) -> dict[str, Any]:
        """Extension members of the problem document (RFC 9457, section 3.2)."""
        return {}


class Malformed(LedgerError):
    """The request could not be read."""

    slug = "malformed"


class TooLarge(LedgerError):
    """The request is too large."""

    slug = "too-large"


class ReadTooLarge(LedgerError):
    """Answering this read would take too many events or rows."""

    slug = "read-too-large"


class UnsupportedMediaType(LedgerError):
    """The content type is not supported."""

    slug = "unsupported-media-type"


class NotFound(LedgerError):
    """The requested resource does not exist."""

    slug = "not-found"


class Unauthenticated(LedgerError):
    """The request has no valid API key."""

    slug = "unauthenticated"


class RateLimited(LedgerError):
    """The API key has made too many requests."""

    slug = "rate-limited"

    def __init__(self, detail: str, retry_after_seconds: int, headers: dict[str, str]) -> None:
        """Create the error.

        Args:
            detail: The limit, and when to retry.
            retry_after_seconds: The value of `Retry-After`.
            headers: Further headers of the response.
        """
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds
        self.headers = headers


class Unavailable(LedgerError):
    """The service is temporarily unavailable; try again later."""

    retry_after_seconds = 1


class Overloaded(Unavailable):
    """Too much work is waiting."""

    slug = "overloaded"


class DatabaseUnavailable(Unavailable):
    """The database is not available."""

    slug = "database-unavailable"


class ProjectionBehind(Unavailable):
    """The read models have not reached the requested position."""

    slug = "projection-behind"


class Refused(LedgerError):
    """An event was refused; nothing was written."""

    index = 0
    """The index of the event in its request, from 0."""


class Forbidden(Refused):
    """The request is not allowed."""

    slug = "forbidden"


class StreamNotFound(Refused):
    """The stream does not exist."""

    slug = "not-found"

    def __init__(self, category: str, stream_id: UUID) -> None:
        super().__init__(f"{category} stream {stream_id} does not exist")


class InvalidEvent(Refused):
    """The data of an event does not match its type."""

    slug = "invalid-event"

    def __init__(self, errors: Sequence[dict[str, Any]]) -> None:
        first = errors[0]
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        super().__init__(f"{first['path']}: {first['message']}{more}")
        self.errors = list(errors)

    @property
    def members(self) -> dict[str, Any]:
        return {"errors": self.errors}


class VersionConflict(Refused):
    """The stream is not at the expected version."""

    slug = "version-conflict"

    def __init__(self, category: str, stream_id: UUID, expected: int, actual: int) -> None:
        """Create the error.

        Args:
            category: The category of the stream.
            stream_id: The stream.
            expected: The `expected_version` of the event.
            actual: The version of the stream.
        """
        super().__init__(f"{category} stream {stream_id} is at version {actual}, not {expected}")
        self.expected = expected
        self.actual = actual

    @property
    def members(self) -> dict[str, Any]:
        return {"expected": self.expected, "actual": self.actual}


class EventIdConflict(Refused):
    """The event id or the Idempotency-Key was used for different content."""

    slug = "event-id-conflict"

    @classmethod
    def in_stream(cls, category: str, stream_id: UUID, event_id: UUID, position: int | None) -> "EventIdConflict":
        """Make the error of an event whose id another event of its stream has.

        Args:
            category: The category of the stream.
            stream_id: The stream.
            event_id: The id of both events.
            position: The position of the recorded event; None if it precedes in the same request.
        """
        place = f"at position {position}" if position else "earlier in this request"
        return cls(f"{category} stream {stream_id} has event {event_id} with different content {place}")


class IllegalTransition(Refused):
    """The status of the stream does not allow this event."""

    slug = "illegal-transition"

    def __init__(self, detail: str, status: str | None, allowed_from: Sequence[str]) -> None:
        """Create the error.

        Args:
            detail: What is not possible, and why.
            status: The status of the stream; None if it does not exist.
            allowed_from: The statuses in which the event is possible; empty if it opens a stream.
        """
        super().__init__(detail)
        self.status = status
        self.allowed_from = list(allowed_from)

    @property
    def members(self) -> dict[str, Any]:
        # Not "status": that is the HTTP status of every problem document (RFC 9457, section 3.1.2).
        return {"stream_status": self.status, "allowed_from": self.allowed_from}


class UnknownReference(Refused):
    """A referenced campaign or job does not exist."""

    slug = "unknown-reference"

    def __init__(self, field: str, referenced: UUID) -> None:
        super().__init__(f"{field} {referenced} does not exist or was deleted")
        self.field = field
        self.referenced = referenced

    @property
    def members(self) -> dict[str, Any]:
        return {"field": self.field, "id": str(self.referenced)}


class ReferenceMismatch(Refused):
    """The job belongs to another campaign."""

    slug = "reference-mismatch"

    def __init__(self, named: UUID, noun: str, actual: UUID | None) -> None:
        """Create the error.

        Args:
            named: The campaign that the event names.
            noun: What it names besides: "job" or "parent job".
            actual: The campaign of that job; None if it has none.
        """
        campaign = f"campaign {actual}" if actual else "no campaign"
        super().__init__(f"campaign_id is {named}, but the {noun} belongs to {campaign}")


class CurrencyMismatch(Refused):
    """The currency is not that of the campaign or job."""

    slug = "currency-mismatch"

    def __init__(self, named: str, expected: str) -> None:
        super().__init__(f"currency is {named}, but the campaign or job uses {expected}")
        self.named = named
        self.expected = expected

    @property
    def members(self) -> dict[str, Any]:
        return {"currency": self.named, "expected": self.expected}


class BudgetExceeded(Refused):
    """The budget does not allow this hold."""

    slug = "budget-exceeded"

    def __init__(self, scopes: Sequence[dict[str, Any]], currency: str) -> None:
        first = scopes[0]
        noun = "ancestor job" if first["scope"] == "ancestor" else first["scope"]
        super().__init__(
            f"requested {first['requested']} {currency}, but only {first['available']} of the {noun}'s budget of "
            f"{first['limit']} is available"
        )
        self.scopes = list(scopes)
        self.currency = currency
        # Of a hold whose amount the service computed.
        self.computed: tuple[Decimal, int] | None = None

    @property
    def members(self) -> dict[str, Any]:
        return {"scopes": self.scopes, "currency": self.currency}


class NothingToErase(Refused):
    """The event has no free text to erase."""

    slug = "nothing-to-erase"
