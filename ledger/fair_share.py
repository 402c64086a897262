"""Fair shares of a bounded resource: an API key may hold at most as much as is free (bytes, slots)."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple


class _Waiter(NamedTuple):
    amount: int
    granted: asyncio.Future[None]


class FairShare:
    """A total that API keys share. A key is granted an amount only if it then holds at most what was free before.

    So one busy key gets half of the total, two get a third each, and a part is always free for another key. Network
    switches share their buffers by this rule (Choudhury and Hahne, "Dynamic Queue Length Thresholds for
    Shared-Memory Packet Switches", 1998). The tasks that wait are bounded by what starts them, such as connections.
    """

    def __init__(self, total: int) -> None:
        """Make a share of `total` units, such as bytes, streams or queries."""
        self._total = total
        self._free = total
        self._held: dict[str, int] = {}
        self._waiting: dict[str, deque[_Waiter]] = {}

    def held(self, key: str) -> int:
        """Return what a key holds."""
        return self._held.get(key, 0)

    def try_take(self, key: str, amount: int = 1) -> bool:
        """Take an amount for a key if its share permits, after all that already wait for this key."""
        if key in self._waiting or not self._fits(key, amount):
            return False
        self._grant(key, amount)
        return True

    async def take(self, key: str, amount: int = 1) -> None:
        """Take an amount for a key; wait while its share does not permit it. A key is served in order of arrival."""
        assert 0 < amount <= self._total
        if self.try_take(key, amount):
            return
        waiter = _Waiter(amount, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(key, deque()).append(waiter)
        try:
            await waiter.granted
        except asyncio.CancelledError:
            self._forget(key, waiter)
            raise

    def give_back(self, key: str, amount: int = 1) -> None:
        """Return an amount that was taken for a key."""
        held = self._held[key] - amount
        assert held >= 0
        if held:
            self._held[key] = held
        else:
            del self._held[key]
        self._free += amount
        self._serve_waiting()

    @asynccontextmanager
    async def hold(self, key: str, amount: int = 1) -> AsyncIterator[None]:
        """Hold an amount for a key inside the context; wait for it before."""
        await self.take(key, amount)
        try:
            yield
        finally:
            self.give_back(key, amount)

    def _fits(self, key: str, amount: int) -> bool:
        return self.held(key) + amount <= self._free

    def _grant(self, key: str, amount: int) -> None:
        self._held[key] = self.held(key) + amount
        self._free -= amount

    def _serve_waiting(self) -> None:
        for key, queue in list(self._waiting.items()):
            granted = False
            while queue and (queue[0].granted.cancelled() or self._fits(key, queue[0].amount)):
                waiter = queue.popleft()
                if not waiter.granted.cancelled():
                    self._grant(key, waiter.amount)
                    waiter.granted.set_result(None)
                    granted = True
            if granted or not queue:
                del self._waiting[key]
            if granted and queue:
                # Last in the rotation: with more keys than units, each key still gets its turn.
                self._waiting[key] = queue

    def _forget(self, key: str, waiter: _Waiter) -> None:
        """Forget a waiter whose task was cancelled, perhaps just after its amount was granted."""
        if not waiter.granted.cancelled():
            self.give_back(key, waiter.amount)
            return
        if waiter in (queue := self._waiting.get(key, deque())):
            queue.remove(waiter)
        self._serve_waiting()
