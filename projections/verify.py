"""`ledger verify`: compares the tables with a replay of the log, checks the log itself and the guards."""

from collections.abc import AsyncIterator, Callable

import msgspec

from ledger.audit import column_check
from ledger.audit.seal_check import find_seal_faults
from ledger.audit.signing_files import LocalCheckpoint
from ledger.database import Connection, Database
from ledger.database.guards import find_guard_faults
from ledger.domain.catalogue import sql_list
from ledger.log.read import read_head
from projections import checkpoint, decision_state, differences, journal_differences
from projections.differences import Difference
from projections.erased_texts import read_pending_erasures
from projections.journals import JOURNALS
from projections.price_faults import find_price_faults
from projections.replay import TEMPORARY, Progress, Replay, ReplayError
from projections.skips import Skip
from projections.tables import READ_MODELS

SNAPSHOT_EVENTS_MAX = 2_000
"""A replay that is at most this far behind the tables folds the rest inside the snapshot."""

FAULTS_SHOWN_MAX = 100
"""The most faults of the log that are listed of each kind."""

FREE_TEXTS = {(model.name, column) for model in READ_MODELS for column in model.free_text_columns}
FREE_TEXTS |= {(journal.name, journal.erasable) for journal in JOURNALS if journal.erasable is not None}
"""The columns of free text, by table: an erasure that the tables have not folded yet changes them."""

ALLOW_SEQUENTIAL_SCANS = "SET LOCAL enable_seqscan = on"
"""Comparisons read whole tables; the replay had turned these scans off."""

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

# A forger could otherwise choose the rules: each schema version is judged by its own.
SCHEMA_VERSION_FAULTS = f"""
SELECT position, type, schema_version, newest FROM (
    SELECT position, type, schema_version, max(schema_version) OVER (PARTITION BY type ORDER BY position) AS newest
    FROM ledger.events WHERE type IN ({sql_list(lambda event_type: event_type.schema_version > 1)})
) AS event
WHERE schema_version < newest
ORDER BY position LIMIT $1
"""  # noqa: S608 (fixed texts)

HEAD_FAULT = """
SELECT head.position, last.position AS last, head.recorded_at, last.recorded_at AS last_recorded_at
FROM ledger.log_head AS head,
    (SELECT coalesce(max(position), 0) AS position, max(recorded_at) AS recorded_at FROM ledger.events) AS last
WHERE head.position <> last.position OR head.recorded_at <> last.recorded_at
"""


class VerificationReport(msgspec.Struct):
    """The result of a verification. `position` is that of the tables, `head` that of the log."""

    position: int = 0
    head: int = 0
    faults: list[str] = []
    skipped: list[Skip] = []
    differences: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether the tables equal the replay, and the log has no faults."""
        return not self.faults and not self.differences


async def verify(
    database: Database,
    on_difference: Callable[[Difference], None],
    local_checkpoint: LocalCheckpoint | None = None,
    progress: Progress = lambda position: None,
    begin: Callable[[int], None] = lambda events: None,
) -> VerificationReport:
    """Replay the log beside the live tables and compare everything in one snapshot. Nothing is changed.

    Args:
        database: with a session, so not behind a transaction-mode pooler.
        on_difference: called with each difference when it is found.
        local_checkpoint: the sealed checkpoint that is stored outside the database.
        progress: called with the position that the replay has reached.
        begin: called with the number of events once it is known.

    Returns:
        the faults, and the number of differences.
    """
    report = VerificationReport()
    async with database.connection() as connection:
        report.faults += await find_guard_faults(connection)
        # First, and apart from the replay: a log with a gap may not be replayable.
        async with connection.transaction(isolation="repeatable_read"):
            await _check_log(connection, report, local_checkpoint)
        report.faults += [fault async for fault in column_check.find_column_faults(connection, report.head)]
        report.faults += [fault async for fault in find_price_faults(connection, report.head)]
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
        # Drops its temporary tables.
        await connection.close()
    return report


async def catch_up(connection: Connection, replay: Replay) -> None:
    """Advance a replay close to the position of the tables, in short transactions."""
    while True:
        reached = min(await checkpoint.read_position(connection), await read_head(connection))
        if reached - replay.position <= SNAPSHOT_EVENTS_MAX:
            return
        await replay.advance(reached)


async def _check_log(
    connection: Connection, report: VerificationReport, local_checkpoint: LocalCheckpoint | None
) -> None:
    await _read_positions(connection, report)
    report.faults += await _find_log_faults(connection)
    report.faults += await find_seal_faults(connection, local_checkpoint, FAULTS_SHOWN_MAX)
    if report.position > report.head:
        report.faults.append(
            f"the tables are at position {report.position:,}, past the end of the log at {report.head:,}"
        )


async def _read_positions(connection: Connection, report: VerificationReport) -> None:
    report.position = await checkpoint.read_position(connection)
    report.head = await read_head(connection)


async def _compare(
    database: Database,
    connection: Connection,
    replay: Replay,
    report: VerificationReport,
    on_difference: Callable[[Difference], None],
) -> None:
    await _read_positions(connection, report)
    await replay.advance(min(report.position, report.head))
    await connection.execute(ALLOW_SEQUENTIAL_SCANS)
    async with database.connection() as latest:
        pending_erasures = await read_pending_erasures(latest, report.position)
    async for difference in _compare_tables(connection):
        if (difference.table, difference.column) in FREE_TEXTS and (
            difference.table,
            difference.id,
        ) in pending_erasures:
            # The text is erased in the log, but the tables have not folded the erasure yet.
            continue
        report.differences += 1
        on_difference(difference)
    # The state that appends are judged by is that of the head, which the tables may not have reached.
    await replay.advance(report.head)
    await connection.execute(ALLOW_SEQUENTIAL_SCANS)
    async for difference in decision_state.compare_with_replay(connection, replay.skipped_positions):
        report.differences += 1
        on_difference(difference)


async def _compare_tables(connection: Connection) -> AsyncIterator[Difference]:
    async for difference in differences.compare_read_models(connection):
        yield difference
    async for difference in journal_differences.compare_journals(connection):
        yield difference


async def _find_log_faults(connection: Connection) -> list[str]:
    faults = []
    for row in await connection.fetch(ORDER_FAULTS, FAULTS_SHOWN_MAX):
        if row["position"] != row["before"] + 1:
            faults.append(f"position {row['position']} follows {row['before']}: positions must have no gaps")
        else:
            faults.append(
                f"position {row['position']} was recorded at {row['recorded_at'].isoformat()}, before its predecessor "
                f"({row['recorded_before'].isoformat()})"
            )
    faults += [
        f"{row['category']} stream {row['stream_id']} has version {row['version']} after {row['before']} "
        f"(position {row['position']}): versions must have no gaps"
        for row in await connection.fetch(VERSION_FAULTS, FAULTS_SHOWN_MAX)
    ]
    faults += [
        f"position {row['position']}: {row['type']} in schema version {row['schema_version']} follows version "
        f"{row['newest']}: the version of a type must not fall; an earlier release was still appending, or the event "
        "was forged"
        for row in await connection.fetch(SCHEMA_VERSION_FAULTS, FAULTS_SHOWN_MAX)
    ]
    for row in await connection.fetch(HEAD_FAULT):
        if row["position"] != row["last"]:
            faults.append(f"the log's head is {row['position']}, but its last event has position {row['last']}")
        else:
            faults.append(
                f"the log's head says that the last event was recorded at {row['recorded_at'].isoformat()}, but it "
                f"was at {row['last_recorded_at'].isoformat()}"
            )
    return faults
