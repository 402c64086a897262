"""Judge the next group ahead, on the working state in memory, while the previous one is written."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime

from ledger.database.singleton import HEAD_TABLE, require_row
from ledger.domain.errors import LedgerError
from ledger.domain.event import Request
from ledger.domain.judge import Verdict
from ledger.log.append import UNKNOWN_HEAD, end_group, judge_all, record_denials
from ledger.log.connection_lease import ConnectionLease
from ledger.log.idempotency_claims import claim_keys
from ledger.log.load import LOAD, Head, decode_loaded
from ledger.log.locked_recorder import APPEND_SECONDS_MAX
from ledger.log.price_cache import PriceCache
from ledger.log.resident_state import ResidentState
from ledger.log.write import Group


class HeadMovedError(LedgerError):
    """The head moved: another process has appended since the working state was loaded. Clients never see it."""


class OptimisticJudge:
    """The resident working state, and the head of the log after the last judged group."""

    def __init__(self, reader: ConnectionLease, prices: PriceCache, clock: Callable[[], datetime] | None) -> None:
        """Create it without a working state.

        Args:
            reader: the connection to load with.
            prices: the price book of the process.
            clock: the time for `recorded_at`; the clock of the database server when None.
        """
        self._reader = reader
        self._prices = prices
        self._clock = clock
        self._state: ResidentState | None = None
        self._head = UNKNOWN_HEAD

    @property
    def is_full(self) -> bool:
        """Whether the state has reached its bound and should be dropped between two groups."""
        return self._state is not None and self._state.is_full

    def reset(self, state: ResidentState | None = None, head: Head | None = None) -> None:
        """Replace the state and its head; without arguments, only drop them."""
        self._state, self._head = state, head or UNKNOWN_HEAD

    async def judge(self, requests: Sequence[Request], head_before_write: Head | None) -> list[Verdict]:
        """Load what the state lacks, and judge requests that join the group being prepared.

        Args:
            requests: judged in this order.
            head_before_write: the head before the group that is being written; None if none is.

        Returns:
            a verdict for each request.

        Raises:
            HeadMovedError: the load saw events that this process did not write.
        """
        connection = await self._reader.get()
        async with asyncio.timeout(APPEND_SECONDS_MAX):
            requests = await claim_keys(connection, requests)
        state = self._state or ResidentState(UNKNOWN_HEAD)
        needed = await state.needed_by(requests)
        now = self._clock() if self._clock else None
        async with asyncio.timeout(APPEND_SECONDS_MAX):
            if needed.needs_prices:
                await self._prices.prepare(connection)
            arguments = needed.arguments(now, self._prices.position)
            row = require_row(await connection.fetchrow(LOAD, *arguments), HEAD_TABLE)
        loaded = decode_loaded(row)
        if self._state is None:
            state, self._head = ResidentState(loaded.head), loaded.head
        elif loaded.head not in (self._head, head_before_write):
            raise HeadMovedError("another process has appended")
        await state.merge(loaded, needed)
        if loaded.prices is not None:
            async with asyncio.timeout(APPEND_SECONDS_MAX):
                state.set_prices(await self._prices.book_at(connection, loaded.prices, loaded.head.position))
        self._state = state
        verdicts = await judge_all(state, requests)
        async with asyncio.timeout(APPEND_SECONDS_MAX):
            await record_denials(connection, state)
        return verdicts

    async def end_group(self) -> Group:
        """Return what the prepared group must write. The next one is judged on top of it."""
        assert self._state is not None
        group = await end_group(self._state, self._head)
        self._head = group.after
        return group
