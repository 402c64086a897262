"""The service struck at random, over and over, under load: nothing acknowledged is lost, doubled, halved or forged.

LEDGER_TEST_SEED=… runs the same faults again, LEDGER_TEST_FAULTS=1000 more of them; `ledger bench --faults MINUTES`
goes on for longer.
"""

import os

from ledger.faults import run
from ledger.faults.kinds import DECK

FAULTS = int(os.environ.get("LEDGER_TEST_FAULTS", "210"))
SEED = os.environ.get("LEDGER_TEST_SEED")


async def test_after_each_of_many_faults_every_promise_holds() -> None:
    report = await run(int(SEED) if SEED else None, faults=FAULTS, report=print)

    print(report)
    assert report.violations == []
    assert report.fault_count == FAULTS
    assert report.events_acknowledged > FAULTS
    assert report.checkpoints > 1
    if sum(DECK.values()) <= FAULTS:
        assert set(report.faults) | set(report.left_out) == {strike.__name__ for strike in DECK}
