"""Cut a long loop into time slices that yield to the event loop, so that other tasks run in between."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

SLICE_SECONDS = 0.002
"""More would delay an append, which needs several iterations of the event loop; less would cost more in pauses."""

T = TypeVar("T")


async def in_slices(items: Iterable[T]) -> AsyncIterator[T]:
    """Yield the items; after each slice of work on them, leave the event loop to other tasks for as long."""
    end = time.monotonic() + SLICE_SECONDS
    for item in items:
        yield item
        if time.monotonic() >= end:
            # Not sleep(0): then a slice would come before each iteration of the loop that an append needs.
            await asyncio.sleep(SLICE_SECONDS)
            end = time.monotonic() + SLICE_SECONDS
