"""The gate of heavy reads: few run at a time, fairly by API key; too many are refused (503).

A route names its heavy requests (`Route.is_heavy`). Such a request is admitted for as long as its response lasts, and
takes a turn for each piece of work: a statement, or a page with its encoding. It has no turn while its client reads.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple, TypeVar

from aiohttp import web

from ledger.domain.errors import Overloaded
from ledger.fair_share import FairShare

OPEN_MAX = 64
"""The most heavy reads that are open, most of which wait for a turn or for their client to read."""

TURNS_MAX = 2
"""The most turns at a time, of which one key gets one: the rest of the machine is for appends and small reads."""

WAIT_SECONDS_MAX = 10.0
"""Timeout of the wait for a turn."""

TURN_SECONDS_MAX = 20.0
"""Timeout of a turn."""

T = TypeVar("T")


class Turns(NamedTuple):
    """The turns of one heavy read."""

    share: FairShare
    key: str

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """Have a turn inside the context; wait for it before.

        Raises:
            Overloaded: the turn did not begin or did not end in time.
        """
        try:
            async with asyncio.timeout(WAIT_SECONDS_MAX):
                await self.share.take(self.key)
        except TimeoutError:
            raise Overloaded(f"this read waited {WAIT_SECONDS_MAX:.0f} s for other reads; retry later") from None
        limit = asyncio.timeout(TURN_SECONDS_MAX)
        try:
            async with limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise Overloaded(
                f"the read took longer than {TURN_SECONDS_MAX:.0f} s; ask for less, or retry later"
            ) from None
        finally:
            self.share.give_back(self.key)

    async def take_for_each(self, pieces: AsyncIterator[T]) -> AsyncIterator[T]:
        """Yield pieces of a response, and take a turn to make each of them."""
        while True:
            async with self.take():
                try:
                    piece = await anext(pieces)
                except StopAsyncIteration:
                    return
            yield piece


class HeavyReads:
    """The heavy reads of one process."""

    def __init__(self) -> None:
        self._open = FairShare(OPEN_MAX)
        self._turns = FairShare(TURNS_MAX)

    @asynccontextmanager
    async def admit(self, key: str) -> AsyncIterator[Turns]:
        """Count a read of a key as open inside the context.

        Raises:
            Overloaded: the key has as many open reads as its share permits.
        """
        if not self._open.try_take(key):
            raise Overloaded(
                f"this key has {self._open.held(key)} large reads in progress, which is its share; retry in 1 s"
            )
        try:
            yield Turns(self._turns, key)
        finally:
            self._open.give_back(key)


TURNS: web.RequestKey[Turns] = web.RequestKey("turns", Turns)


@asynccontextmanager
async def turn(request: web.Request) -> AsyncIterator[None]:
    """Have a turn inside the context if the request is a heavy read; other requests need none."""
    turns = request.get(TURNS)
    if turns is None:
        yield
        return
    async with turns.take():
        yield
