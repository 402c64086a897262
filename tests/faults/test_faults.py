"""The service under random faults and load: no event is lost, doubled, partly stored or forged.

LEDGER_TEST_SEED=… injects the same faults again; LEDGER_TEST_FAULTS=1000 sets their number, LEDGER_TEST_APIS=3 that of
the API processes. `ledger bench --faults MINUTES` runs the suite for a given time.
"""

import os

from ledger.bench.faults import run
from ledger.bench.faults.fault_types import FAULT_COUNTS

FAULTS = int(os.environ.get("LEDGER_TEST_FAULTS", "210"))
APIS = int(os.environ.get("LEDGER_TEST_APIS", "2"))
SEED = os.environ.get("LEDGER_TEST_SEED")


async def test_every_promise_is_kept_after_each_of_many_faults() -> None:
    report = await run(int(SEED) if SEED else None, faults=FAULTS, api_count=APIS, on_step=print)

    print(report)
    assert report.violations == []
    assert report.fault_count == FAULTS
    assert report.events_acknowledged > FAULTS
    assert report.checkpoints > 1
    if sum(FAULT_COUNTS.values()) <= FAULTS:
        assert set(report.faults) | set(report.left_out) == {fault.__name__ for fault in FAULT_COUNTS}
