"""Why a benchmark fails: the figure could not be measured, or the service violated a promise."""

from ledger.domain.errors import LedgerError


class MeasurementError(LedgerError):
    """A figure could not be measured; the message says why."""


class PromiseViolationError(LedgerError):
    """The service overspent a budget, lost an acknowledged event, or reported a wrong balance."""
