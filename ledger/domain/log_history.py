"""Rules that concern a log as a whole, not one stream: schema versions of a type never fall."""

from ledger.domain.errors import LedgerError
from ledger.domain.event import Recorded


class InvalidLogError(LedgerError):
    """The log breaks its own rules."""


class LogHistory:
    """What the events of a log so far decide about later ones, beyond the states of streams."""

    def __init__(self) -> None:
        self._schema_versions: dict[str, int] = {}

    def add(self, recorded: Recorded) -> None:
        """Check the next event of the log.

        Raises:
            InvalidLogError: It has an older schema version than an earlier event of its type. Each version is judged by
                its own rules, so that a forger could otherwise choose the rules.
        """
        newest = self._schema_versions.setdefault(recorded.type, recorded.schema_version)
        if recorded.schema_version < newest:
            raise InvalidLogError(
                f"{recorded.type} in schema version {recorded.schema_version} follows version {newest}: "
                "the version of a type must not fall"
            )
        self._schema_versions[recorded.type] = recorded.schema_version
