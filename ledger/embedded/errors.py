"""The one error of the embedded PostgreSQL."""

from ledger.domain.errors import LedgerError


class EmbeddedError(LedgerError):
    """The embedded PostgreSQL cannot be used; the message says why and what to do next."""
