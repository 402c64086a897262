"""The full check, too slow after each fault: the log from its first event, and `ledger verify`."""

import asyncio

import asyncpg

from ledger.audit.signing_files import LocalCheckpoint
from ledger.bench.faults.checker import Checker
from ledger.bench.faults.history import History
from ledger.bench.faults.system_under_test import SystemUnderTest
from ledger.database import Database
from projections.differences import Difference
from projections.verify import verify

POSITIONS = """
SELECT head.position AS head, checkpoint.position AS folded, sealed.size AS sealed
FROM ledger.log_head AS head, ledger.projection_checkpoints AS checkpoint, ledger.log_checkpoint AS sealed
"""

CATCH_UP_SECONDS_MAX = 60.0


async def violations(database: Database, local_checkpoint: LocalCheckpoint | None, history: History) -> list[str]:
    """Check the log, the read models, the balances and the seal from the beginning.

    Args:
        database: of the system under test.
        local_checkpoint: what is known of the sealed log outside the database.
        history: of the clients.

    Returns:
        the violations.
    """
    acknowledged = list(history.acknowledged.values())
    async with database.connection() as connection:
        found = await Checker(history).violations(connection, acknowledged)
    differences: list[Difference] = []
    report = await verify(database, differences.append, local_checkpoint)
    found += [f"ledger verify: {fault}" for fault in report.faults]
    found += [f"ledger verify: {difference}" for difference in differences]
    found += [f"an event was skipped: {skip}" for skip in report.skipped]
    return found


async def wait_until_caught_up(system: SystemUnderTest) -> list[str]:
    """Wait, once the load has ended, until all events are folded and sealed; a timeout is a violation."""
    positions: asyncpg.Record | None = None
    try:
        async with asyncio.timeout(CATCH_UP_SECONDS_MAX), system.connection() as connection:
            while True:
                positions = await connection.fetchrow(POSITIONS)
                assert positions is not None
                if positions["head"] == positions["folded"] == positions["sealed"]:
                    return []
                await asyncio.sleep(0.1)
    except TimeoutError:
        return [f"{CATCH_UP_SECONDS_MAX:.0f} s after the load, read models or seal are behind the log: {positions}"]
