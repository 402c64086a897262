"""The event loop of a command, and its stop signals SIGINT and SIGTERM."""

import asyncio
import gc
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

import click
import uvloop

T = TypeVar("T")

GARBAGE_THRESHOLD = 20_000
"""Allocations between two garbage collections. A group of appends makes thousands of objects, all freed without one;
with 50,000 a collection kept the event loop for 14 to 33 ms."""


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a new event loop, with garbage collection tuned for appends."""
    # Imported modules live as long as the process: scanning them for garbage took a fifth of the time of an append.
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        return uvloop.run(main)
    finally:
        # The loop restores the default, by which a second SIGTERM would end this process before PostgreSQL has stopped.
        signal.signal(signal.SIGTERM, handler)


def stop_signal() -> asyncio.Event:
    """Return an event that SIGINT (Ctrl-C) or SIGTERM sets.

    Call it before starting anything that must be stopped in order: after it the signals no longer end the process.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop


async def wait_for_stop(stop: asyncio.Event) -> None:
    """Wait for the stop signal, and acknowledge it on stdout."""
    await stop.wait()
    click.echo("Stopping: finishing the work already accepted.")
