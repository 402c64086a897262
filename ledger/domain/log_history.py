"""Rules of a log as a whole: schema versions never fall, a missing text needs a later erasure."""

from typing import NamedTuple
from uuid import UUID

from ledger.domain.errors import LedgerError
from ledger.domain.event import Candidate, Recorded
from ledger.domain.ledger_events import PAYLOAD_ERASED, PayloadErased
from ledger.domain.price_check import PricedCalls


class InvalidLogError(LedgerError):
    """The log breaks its own rules."""


class _Event(NamedTuple):
    """An event as the record of its erasure names it."""

    category: str
    stream_id: UUID
    type: str


class LogHistory:
    """What the events of a log so far decide about later ones, beyond the states of streams.

    Its memory grows only with the texts that are missing without a record of their erasure so far, and with the entries
    whose costs were or may be computed from usage, unless the caller looks these up (`PricedCalls.replace`).
    """

    def __init__(self) -> None:
        self._schema_versions: dict[str, int] = {}
        self._missing_texts: dict[int, _Event] = {}
        self.priced_calls = PricedCalls()

    @property
    def missing_texts(self) -> int:
        """The number of texts that are missing without a record of their erasure so far."""
        return len(self._missing_texts)

    def describe_missing_texts(self) -> str:
        """Say which texts are missing without a record of their erasure, and why that may be."""
        count, first = len(self._missing_texts), min(self._missing_texts)
        return (
            f"the free text of {count:,} event{'s' if count > 1 else ''} is missing (first: position {first:,}), but "
            f"no {PAYLOAD_ERASED} in the export records the erasure: either texts were removed from the export, or it "
            "ends too early; export the log up to its end"
        )

    def add(self, recorded: Recorded, candidate: Candidate) -> None:
        """Check the next event of the log, given as it was recorded and as it was decoded.

        Raises:
            InvalidLogError: Its schema version is older than that of an earlier event of its type, or it records the
                erasure of a text that is not missing.
        """
        self._check_version(recorded)
        if recorded.text is None and recorded.text_commitment is not None:
            event = _Event(recorded.category, recorded.stream_id, recorded.type)
            self._missing_texts[recorded.position] = event
        if isinstance(candidate.payload, PayloadErased):
            self._erase(recorded.stream_id, candidate.payload)

    def _check_version(self, recorded: Recorded) -> None:
        # Each version is judged by its own rules: a forger could otherwise choose the rules.
        newest = self._schema_versions.setdefault(recorded.type, recorded.schema_version)
        if recorded.schema_version < newest:
            raise InvalidLogError(
                f"{recorded.type} in schema version {recorded.schema_version} follows version {newest}: "
                "the version of a type must not fall; an earlier release was still appending, or the event was forged"
            )
        self._schema_versions[recorded.type] = recorded.schema_version

    def _erase(self, stream_id: UUID, erasure: PayloadErased) -> None:
        named = _Event(erasure.category, erasure.stream_id, erasure.event_type)
        if stream_id != erasure.stream_id or self._missing_texts.pop(erasure.position, None) != named:
            raise InvalidLogError(
                f"{PAYLOAD_ERASED} records the erasure of {erasure.event_type} at position {erasure.position}, but no "
                "such event has lost its text"
            )
