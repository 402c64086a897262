"""Cut a long loop into time slices that yield to the event loop, so that other tasks run in between."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

SLICE_SECONDS = 0.002
"""More would delay an append, which needs several iterations of the event loop; less would cost more in pauses."""

BUSY_SECONDS = 0.0002
"""If the other tasks ran for longer than this between two slices, they get the time of a slice as well."""

T = TypeVar("T")


async def in_slices(items: Iterable[T]) -> AsyncIterator[T]:
    """Yield the items; after each slice of work on them, let the other tasks of the event loop run."""
    end = time.monotonic() + SLICE_SECONDS
    for item in items:
        yield item
        if (now := time.monotonic()) >= end:
            await asyncio.sleep(0)
            if time.monotonic() - now > BUSY_SECONDS:
                await asyncio.sleep(SLICE_SECONDS)
            end = time.monotonic() + SLICE_SECONDS
