"""The fault-injection suite: random kills, cuts and full disks, with checks after each.

`tests/faults/` and `ledger bench --faults` call `run`. PostgreSQL, API and worker run as separate processes in a
temporary folder; no existing ledger is touched. The names of the parts are Jepsen's: system under test, workload,
faults, history, checker.
"""

from ledger.bench.faults.suite import FaultReport, run

__all__ = ["FaultReport", "run"]
