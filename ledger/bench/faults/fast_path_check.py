"""After the faults: an API process that appends alone is soon on the optimistic path again."""

import asyncio
import time
from collections.abc import Awaitable, Callable

RETURN_SECONDS_MAX = 2.0
"""The optimistic path is used again this long after the last conflict."""

SLOW_MACHINE_SECONDS = 1.0
"""Added for a machine that is busy with the rest of the suite."""

APPENDS_PAUSE_SECONDS = 0.02

ALONE_SECONDS_MAX = 60.0
"""How long others may go on appending."""

OPTIMISTIC_GROUPS = 'ledger_append_groups_total{path="optimistic"}'


async def violations(
    append: Callable[[], Awaitable[int]], optimistic_groups: Callable[[], Awaitable[float]]
) -> list[str]:
    """Append single events to one process until it uses the optimistic path.

    An event of another process between two of these is a conflict, from which on the time counts again.

    Args:
        append: appends an event to the process and returns its position.
        optimistic_groups: returns the number of groups that the process has appended on the optimistic path.

    Returns:
        a violation if it is not used within RETURN_SECONDS_MAX of the last conflict.
    """
    position = await append()
    groups = await optimistic_groups()
    began = last_conflict = time.monotonic()
    while await optimistic_groups() == groups:
        previous, position, now = position, await append(), time.monotonic()
        if position != previous + 1:
            last_conflict = now
        elif now - last_conflict > RETURN_SECONDS_MAX + SLOW_MACHINE_SECONDS:
            return [f"a process that appends alone is not on the optimistic path after {now - last_conflict:.1f} s"]
        if now - began > ALONE_SECONDS_MAX:
            return [
                f"other processes were still appending after {ALONE_SECONDS_MAX:.0f} s, although all load had ended"
            ]
        await asyncio.sleep(APPENDS_PAUSE_SECONDS)
    return []
