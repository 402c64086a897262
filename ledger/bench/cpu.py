"""Processor time used by the service, PostgreSQL and the load generator, per event."""

from contextlib import suppress
from typing import NamedTuple

import psutil


class CpuTime(NamedTuple):
    """Seconds of processor time used up to now."""

    service: float
    postgresql: float

    def since(self, before: "CpuTime", events: float = 1) -> dict[str, float]:
        """Return the microseconds per event used since `before`, by process."""
        return {
            "service CPU": (self.service - before.service) * 1e6 / events,
            "PostgreSQL CPU": (self.postgresql - before.postgresql) * 1e6 / events,
        }


def read_cpu_time(service_pid: int, postmaster_pid: int) -> CpuTime:
    """Return the processor time used up to now by the service's process and by all processes of PostgreSQL."""
    return CpuTime(_process_seconds(service_pid), _process_tree_seconds(postmaster_pid))


def _process_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def _process_tree_seconds(pid: int) -> float:
    parent = psutil.Process(pid)
    times = parent.cpu_times()
    # The parent's children_* times cover only the children that have ended; running ones are added one by one.
    total = times.user + times.system + times.children_user + times.children_system
    for child in parent.children():
        with suppress(psutil.Error):
            total += _process_seconds(child.pid)
    return total
