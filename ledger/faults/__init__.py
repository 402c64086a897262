"""The fault suite: the whole service is struck at random under load, and after each blow everything must hold.

`run` is what `tests/faults/` and `ledger bench --faults` call. Here PostgreSQL, API and worker are processes of their
own, in a folder that is thrown away; nothing of a real ledger is touched.
"""

from ledger.faults.suite import Report, run

__all__ = ["Report", "run"]
