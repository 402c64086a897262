"""What costs too much after each fault: everything again from the first event, and `ledger verify` itself."""

import asyncio

import asyncpg

from ledger.audit.signing_files import LocalCheckpoint
from ledger.database import Database
from ledger.faults.look import Look
from ledger.faults.machine import Machine
from ledger.faults.witness import Witness
from projections.differences import Difference
from projections.verify import verify

STANDING = """
SELECT head.position AS head, checkpoint.position AS folded, sealed.size AS sealed
FROM ledger.log_head AS head, ledger.projection_checkpoints AS checkpoint, ledger.log_checkpoint AS sealed
"""

CATCH_UP_SECONDS_MAX = 60.0


async def violations(database: Database, kept: LocalCheckpoint | None, witness: Witness) -> list[str]:
    """What does not hold in the log, the tables, the balances or the seal, all of it looked at anew.

    Args:
        kept: what is known of the sealed log outside the database.
    """
    acknowledged = list(witness.acknowledged.values())
    async with database.connection() as connection:
        found = await Look(witness).violations(connection, acknowledged)
    differences: list[Difference] = []
    report = await verify(database, differences.append, kept)
    found += [f"ledger verify: {fault}" for fault in report.faults]
    found += [f"ledger verify: {difference}" for difference in differences]
    found += [f"an event was skipped: {skip}" for skip in report.skipped]
    return found


async def caught_up(machine: Machine) -> list[str]:
    """Wait, when nothing comes any more, until everything is folded and sealed; what has not come so far."""
    standing: asyncpg.Record | None = None
    try:
        async with asyncio.timeout(CATCH_UP_SECONDS_MAX), machine.connection() as connection:
            while True:
                standing = await connection.fetchrow(STANDING)
                assert standing is not None
                if standing["head"] == standing["folded"] == standing["sealed"]:
                    return []
                await asyncio.sleep(0.1)
    except TimeoutError:
        return [f"after {CATCH_UP_SECONDS_MAX:.0f} s of quiet the tables or the seal are behind: {standing}"]
