"""Decoding of the events of requests, so that large ones do not block other requests."""

from collections.abc import Callable, Sequence

from ledger.domain.access import Caller
from ledger.domain.errors import LedgerError
from ledger.domain.event import Candidate
from ledger.fair_share import FairShare
from ledger.log.idempotency import IdempotencyKey
from ledger.log.submit import decode_each
from ledger.time_slices import in_slices

LARGE_EVENTS_MIN = 200
"""Requests of at least this size take turns: each has a time slice in every iteration of the event loop."""

TURNS_MAX = 2
"""The most turns at a time, of which one key gets one."""


class EventDecoding:
    """Decodes the events of all requests of a process."""

    def __init__(self, require_room: Callable[[str, int], None]) -> None:
        """Create the decoder of a process.

        Args:
            require_room: raises `Overloaded` if a key cannot queue this many events; then they are not decoded.
        """
        self._require_room = require_room
        self._turns = FairShare(TURNS_MAX)

    async def decode(
        self, texts: Sequence[bytes], caller: Caller, key: IdempotencyKey | None
    ) -> list[Candidate | LedgerError]:
        """Decode the events of a request, in turns and time slices if they are many.

        Args:
            texts: the JSON texts of the events.
            caller: the sender.
            key: the Idempotency-Key of the request.

        Returns:
            for each text, in order, the candidate or the error.

        Raises:
            Overloaded: too many events of the key wait to be recorded.
        """
        decoded = decode_each(texts, caller, key)
        if len(texts) < LARGE_EVENTS_MIN:
            return list(decoded)
        async with self._turns.hold(caller.name):
            self._require_room(caller.name, len(texts))
            return [item async for item in in_slices(decoded)]
