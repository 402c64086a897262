"""Where the processor's time goes: by process, between two moments."""

import os
from contextlib import suppress
from typing import NamedTuple

import psutil


class Spent(NamedTuple):
    """Seconds of processor time that were spent so far."""

    service: float
    postgresql: float
    load: float

    def since(self, before: "Spent", events: float) -> dict[str, float]:
        """Microseconds an event, by who spent them."""
        return {
            f"{name} CPU": (now - then) * 1e6 / events
            for name, now, then in zip(("service", "PostgreSQL", "load"), self, before, strict=True)
        }


def spent(service_pid: int, postmaster_pid: int) -> Spent:
    """What the service's process, PostgreSQL's and the programs that this one has run to their end have spent."""
    ours = os.times()
    return Spent(_own(service_pid), _with_children(postmaster_pid), ours.children_user + ours.children_system)


def _own(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def _with_children(pid: int) -> float:
    parent = psutil.Process(pid)
    times = parent.cpu_times()
    # Those that have ended are in the parent's account, the living in their own.
    total = times.user + times.system + times.children_user + times.children_system
    for one in parent.children():
        with suppress(psutil.Error):
            total += _own(one.pid)
    return total
