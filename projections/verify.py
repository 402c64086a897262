"""ledger verify: the tables against the log that they come from, and the log against its own rules."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from ledger.audit import column_check
from ledger.audit.seal_check import find_seal_faults
from ledger.audit.signing_files import LocalCheckpoint
from ledger.database import Connection, Database
from ledger.log.read import read_head
from projections import checkpoint, decision_state, differences
from projections.differences import Difference
from projections.erased_texts import read_forgetting
from projections.replay import TEMPORARY, Progress, Replay, ReplayError
from projections.skips import Skip
from projections.tables import READ_MODELS_BY_NAME

if TYPE_CHECKING:
    pass

NEAR_EVENTS = 2_000
"""So close to the tables' position the rest is folded inside the snapshot."""

SHOWN_MAX = 100
"""Faults of the log itself are listed up to this many of a kind."""

COMPARING = "SET LOCAL enable_seqscan = on"

ORDER_FAULTS = """
SELECT position, before, recorded_at, recorded_before FROM (
    SELECT position, recorded_at, lag(position, 1, 0::bigint) OVER positions AS before,
        lag(recorded_at) OVER positions AS recorded_before
    FROM ledger.events WINDOW positions AS (ORDER BY position)
) AS event
WHERE position <> before + 1 OR recorded_at < recorded_before
ORDER BY position LIMIT $1
"""

VERSION_FAULTS = """
SELECT category, stream_id, position, version, before FROM (
    SELECT category, stream_id, position, version, lag(version, 1, 0::bigint) OVER versions AS before
    FROM ledger.events WINDOW versions AS (PARTITION BY category, stream_id ORDER BY position)
) AS event
WHERE version <> before + 1
ORDER BY position LIMIT $1
"""

HEAD_FAULT = """
SELECT head.position, last.position AS last, head.recorded_at < last.recorded_at AS is_early
FROM ledger.log_head AS head,
    (SELECT coalesce(max(position), 0) AS position, max(recorded_at) AS recorded_at FROM ledger.events) AS last
WHERE head.position <> last.position OR head.recorded_at < last.recorded_at
"""


class Report(msgspec.Struct):
    """What a verification found. `position` is where the tables stand, `head` where the log does."""

    position: int = 0
    head: int = 0
    faults: list[str] = []
    skipped: list[Skip] = []
    differences: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether the tables are what the log says, and the log is whole."""
        return not self.faults and not self.differences


async def verify(
    database: Database,
    on_difference: Callable[[Difference], None],
    kept: LocalCheckpoint | None = None,
    progress: Progress = lambda position: None,
    begin: Callable[[int], None] = lambda events: None,
) -> Report:
    """Replay the log beside the live tables, and compare all of it in one snapshot. Nothing is changed.

    Args:
        on_difference: called with each difference as it is found.
        kept: what is known of the sealed log outside the database.
        begin: called with the number of events once it is known.
    """
    report = Report()
    async with database.connection() as connection:
        # First, and by itself: a log with a gap may be one that cannot be replayed.
        async with connection.transaction(isolation="repeatable_read"):
            await _look_at_log(connection, report, kept)
        report.faults += [fault async for fault in column_check.find_column_faults(connection, report.head)]
        replay = Replay(database, connection, TEMPORARY, progress)
        begin(report.head)
        await replay.create_tables()
        try:
            await catch_up(connection, replay)
            async with connection.transaction(isolation="repeatable_read"):
                await _compare(database, connection, replay, report, on_difference)
        except ReplayError as error:
            report.faults.append(error.detail)
        report.skipped = replay.skipped
        # With the connection go its temporary tables.
        await connection.close()
    return report


async def catch_up(connection: Connection, replay: Replay) -> None:
    """Bring a replay close to where the tables stand, in short transactions."""
    while True:
        reached = min((await checkpoint.read_checkpoint_status(connection)).position, await read_head(connection))
        if reached - replay.position <= NEAR_EVENTS:
            return
        await replay.advance(reached)


async def _look_at_log(connection: Connection, report: Report, kept: LocalCheckpoint | None) -> None:
    await _where(connection, report)
    report.faults += await _faults_of_log(connection)
    report.faults += await find_seal_faults(connection, kept, SHOWN_MAX)
    if report.position > report.head:
        report.faults.append(f"the tables are at position {report.position:,}, past the log's end at {report.head:,}")


async def _where(connection: Connection, report: Report) -> None:
    report.position = (await checkpoint.read_checkpoint_status(connection)).position
    report.head = await read_head(connection)


async def _compare(
    database: Database,
    connection: Connection,
    replay: Replay,
    report: Report,
    on_difference: Callable[[Difference], None],
) -> None:
    await _where(connection, report)
    await replay.advance(min(report.position, report.head))
    await connection.execute(COMPARING)
    async with database.connection() as latest:
        forgetting = await read_forgetting(latest, report.position)
    async for difference in differences.compare_read_models(connection):
        is_text = difference.column in READ_MODELS_BY_NAME[difference.table].free_text_columns
        if is_text and (difference.table, difference.id) in forgetting:
            # Gone from the log, but the tables have yet to come to the erasure.
            continue
        report.differences += 1
        on_difference(difference)
    # What appends are judged by stands at the head, which the tables may not have reached.
    await replay.advance(report.head)
    await connection.execute(COMPARING)
    async for difference in decision_state.compare_with_replay(connection, replay.left_out):
        report.differences += 1
        on_difference(difference)


async def _faults_of_log(connection: Connection) -> list[str]:
    faults = []
    for row in await connection.fetch(ORDER_FAULTS, SHOWN_MAX):
        if row["position"] != row["before"] + 1:
            faults.append(f"position {row['position']} comes after {row['before']}: positions must have no gaps")
        else:
            faults.append(
                f"position {row['position']} was recorded at {row['recorded_at'].isoformat()}, before its predecessor "
                f"({row['recorded_before'].isoformat()})"
            )
    faults += [
        f"{row['category']} stream {row['stream_id']} has version {row['version']} after {row['before']} "
        f"(position {row['position']}): versions must have no gaps"
        for row in await connection.fetch(VERSION_FAULTS, SHOWN_MAX)
    ]
    for row in await connection.fetch(HEAD_FAULT):
        if row["position"] != row["last"]:
            faults.append(f"the log's head says {row['position']} events, its last event is at {row['last']}")
        else:
            faults.append("the log's head was recorded before its last event")
    return faults
