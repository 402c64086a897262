"""The error of the embedded PostgreSQL."""

from ledger.domain.errors import LedgerError


class EmbeddedError(LedgerError):
    """The embedded PostgreSQL cannot be used; the message names the reason and the next step."""
