"""`ledger rebuild`: correct the read models from a replay, while reads and appends continue.

The log is replayed beside the live tables and compared with them in a snapshot. Then one transaction, which only the
worker waits for, locks the checkpoint, folds the events since the snapshot, and writes the rows that differ. The tables
stay, and with them their grants, views and foreign keys. Balances, holds and streams, which appends are judged by, are
compared too; only if one of them is wrong, appends wait while it is corrected.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import asyncpg
import msgspec

from ledger.database import Connection, Database
from ledger.database.singleton import CHECKPOINT_TABLE, require_row
from ledger.domain.errors import LedgerError
from ledger.log.append import LOCK_HEAD
from ledger.log.notifications import notify_other_processes
from ledger.log.read import read_head
from projections import checkpoint, decision_state, differences, journal_differences
from projections.journals import JOURNALS
from projections.replay import TEMPORARY, ChangedRow, Progress, Replay, ReplayError
from projections.skips import Skip
from projections.tables import BUDGET_ENTRIES, NAMES, REFERENCED_FIRST, ReadModel
from projections.verify import ALLOW_SEQUENTIAL_SCANS, catch_up

# An advisory lock: "ledger" in ASCII, and 2 for rebuild.
TRY_LOCK_REBUILD = "SELECT pg_try_advisory_lock(x'6c65646765720002'::bigint)"

TIMEOUTS = "SET LOCAL lock_timeout = '30s'"

MERGE = """
INSERT INTO public.{table} ({columns})
SELECT {columns} FROM {schema}.{table} WHERE id IN (SELECT id FROM {schema}.differing WHERE table_name = '{table}')
ON CONFLICT (id) DO UPDATE SET {changes} WHERE ({live}) IS DISTINCT FROM ({replayed})
"""

REMOVE = """
DELETE FROM public.{table}
WHERE id IN (SELECT id FROM {schema}.differing WHERE table_name = '{table}')
    AND NOT EXISTS (SELECT FROM {schema}.{table} AS replayed WHERE replayed.id = public.{table}.id)
"""

IS_REFERENCED = """
SELECT EXISTS (
    SELECT FROM public.{other} AS referring JOIN {schema}.differing ON differing.id = referring.{column}
    WHERE table_name = '{table}' AND NOT EXISTS (SELECT FROM {schema}.{table} WHERE id = referring.{column})
)
"""

REBUILD_ALL = "Run `ledger rebuild` without --projection to rebuild all of them."

ADD_DIFFERING = """
INSERT INTO {schema}.differing SELECT * FROM unnest($1::text[], $2::uuid[]) ON CONFLICT DO NOTHING
"""


class RebuildRunningError(LedgerError):
    """Another rebuild is running."""


class DependentTableError(LedgerError):
    """A foreign key binds the table to another one, so that it cannot be rebuilt alone."""


class RebuildReport(msgspec.Struct):
    """The result of a rebuild: rows written and removed by table, and the position that the read models are at.

    `written` includes the tables of balances, holds and streams only if one of them was wrong. `not_compared` is the
    reason if these could not be compared.
    """

    position: int
    written: dict[str, int]
    removed: dict[str, int]
    skipped: list[Skip]
    not_compared: str | None = None


async def rebuild(
    database: Database,
    tables: Collection[str] = NAMES,
    progress: Progress = lambda position: None,
    begin: Callable[[int], None] = lambda events: None,
) -> RebuildReport:
    """Write the rows that differ from a replay, in one transaction.

    Args:
        database: with a session, so not behind a transaction-mode pooler.
        tables: names of the read models to rebuild.
        progress: called with the position that the replay has reached.
        begin: called with the number of events once it is known.

    Returns:
        the rows written and removed.

    Raises:
        RebuildRunningError: another rebuild is running.
        DependentTableError: a foreign key binds a table to one that is not in `tables`; nothing was changed.
        ReplayError: an event cannot be folded; nothing was changed.
    """
    models = tuple(model for model in REFERENCED_FIRST if model.name in tables)
    async with database.connection() as connection:
        if not await connection.fetchval(TRY_LOCK_REBUILD):
            raise RebuildRunningError("another rebuild is running on this database; wait until it has ended")
        replay = Replay(database, connection, TEMPORARY, progress)
        begin(await read_head(connection))
        await replay.create_tables()
        await catch_up(connection, replay)
        async with connection.transaction(isolation="repeatable_read"):
            await replay.advance(min(await checkpoint.read_position(connection), await read_head(connection)))
            await connection.execute(ALLOW_SEQUENTIAL_SCANS)
            await differences.collect_differing_ids(connection, models)
            await journal_differences.collect_differing_positions(connection)
        async with connection.transaction():
            report = await _merge(connection, replay, models)
        if models == REFERENCED_FIRST:
            try:
                report.written |= await _correct_decision_state(connection, replay)
            except ReplayError as error:
                report.not_compared = error.detail
        # Releases its lock and drops its temporary tables.
        await connection.close()
    # Wakes a worker that had paused.
    await notify_other_processes(database)
    return report


async def _merge(connection: Connection, replay: Replay, models: Sequence[ReadModel[Any]]) -> RebuildReport:
    await connection.execute(TIMEOUTS)
    position = require_row(await connection.fetchval(checkpoint.LOCK_CHECKPOINT), CHECKPOINT_TABLE)
    changed: set[ChangedRow] = set()
    compared = replay.position
    await replay.advance(min(position, await read_head(connection)), changed)
    await connection.execute(ADD_DIFFERING.format(schema=TEMPORARY), *_columns(changed, models))
    written, removed = {}, {}
    await _require_unreferenced(connection, models)
    for model in models:
        try:
            written[model.name] = _count(await connection.execute(_merge_statement(model)))
        except asyncpg.ForeignKeyViolationError as error:
            raise DependentTableError(f"{model.name} cannot be rebuilt alone: {error.detail} {REBUILD_ALL}") from error
    # The rows that referred to the deleted ones have been corrected above.
    for model in reversed(models):
        removed[model.name] = _count(await connection.execute(REMOVE.format(schema=TEMPORARY, table=model.name)))
    if BUDGET_ENTRIES in models:
        await _correct_journals(connection, compared, written, removed)
    # The same position, unless it was past the log's end. Clears a failure, since its cause may have been corrected.
    await connection.execute(checkpoint.ADVANCE_CHECKPOINT, replay.position)
    return RebuildReport(replay.position, written, removed, replay.skipped)


async def _correct_journals(
    connection: Connection, compared: int, written: dict[str, int], removed: dict[str, int]
) -> None:
    """Correct the journals of the events that `budget_entries` are made of."""
    for journal in JOURNALS:
        written[journal.name], removed[journal.name] = await journal_differences.correct(connection, journal, compared)


async def _require_unreferenced(connection: Connection, models: Sequence[ReadModel[Any]]) -> None:
    """Refuse to delete rows that other tables refer to: their foreign keys would change or delete those rows too."""
    for other in (model for model in REFERENCED_FIRST if model not in models):
        for column, target, _ in other.references:
            is_referenced = IS_REFERENCED.format(schema=TEMPORARY, table=target.name, other=other.name, column=column)
            if target in models and await connection.fetchval(is_referenced):
                raise DependentTableError(
                    f"{target.name} cannot be rebuilt alone: rows of {other.name} refer to rows that must be deleted. "
                    f"{REBUILD_ALL}"
                )


async def _correct_decision_state(connection: Connection, replay: Replay) -> dict[str, int]:
    async with connection.transaction(isolation="repeatable_read"):
        await replay.advance(await read_head(connection))
        await connection.execute(ALLOW_SEQUENTIAL_SCANS)
        differing = decision_state.compare_with_replay(connection, replay.skipped_positions)
        is_correct = not [difference async for difference in differing]
    if is_correct:
        return {}
    async with connection.transaction():
        await connection.execute(TIMEOUTS)
        await replay.advance(await connection.fetchval(LOCK_HEAD))
        await connection.execute(ALLOW_SEQUENTIAL_SCANS)
        return await decision_state.correct(connection, replay.skipped_positions)


def _columns(changed: set[ChangedRow], models: Sequence[ReadModel[Any]]) -> tuple[list[str], list[object]]:
    tables = {model.name for model in models}
    rows = [row for row in changed if row.table in tables]
    return [row.table for row in rows], [row.id for row in rows]


def _merge_statement(model: ReadModel[Any]) -> str:
    return MERGE.format(
        schema=TEMPORARY,
        table=model.name,
        columns=", ".join(model.columns),
        changes=", ".join(f"{column} = excluded.{column}" for column in model.columns if column != "id"),
        live=", ".join(differences.comparable(model, model.name, column) for column in model.columns),
        replayed=", ".join(differences.comparable(model, "excluded", column) for column in model.columns),
    )


def _count(status: str) -> int:
    return int(status.rpartition(" ")[2])
