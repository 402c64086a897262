"""ledger rebuild: the read models made what the log says, while reads and appends go on.

The log is replayed beside the live tables and compared with them in a snapshot. Then, in one transaction that only
the worker waits for: take the checkpoint, fold what came since, and write the differing rows. Grants, views and
foreign keys stay, since the tables do. Balances, holds and streams, which appends are judged by, are compared as
well; only where one of them is wrong do appends wait for the moment that mends it.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import asyncpg
import msgspec

from ledger.database import Connection, Database
from ledger.domain.errors import LedgerError
from ledger.log.append import LOCK_HEAD
from ledger.log.notifications import notify_other_processes
from ledger.log.read import read_head
from projections import checkpoint, decision_state, differences
from projections.replay import TEMPORARY, Progress, Replay, ReplayError, Touched
from projections.skips import Skip
from projections.tables import NAMES, REFERENCED_FIRST, ReadModel
from projections.verify import COMPARING, catch_up

# "ledger rebuild" as a number.
TRY_LOCK = "SELECT pg_try_advisory_lock(x'6c65646765720002'::bigint)"

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

BOUND = """
SELECT EXISTS (
    SELECT FROM public.{other} AS referring JOIN {schema}.differing ON differing.id = referring.{column}
    WHERE table_name = '{table}' AND NOT EXISTS (SELECT FROM {schema}.{table} WHERE id = referring.{column})
)
"""

ALL_FOUR = "`ledger rebuild` without --projection mends all four."

NOTE_TOUCHED = """
INSERT INTO {schema}.differing SELECT * FROM unnest($1::text[], $2::uuid[]) ON CONFLICT DO NOTHING
"""


class RebuildRunningError(LedgerError):
    """Another rebuild is at work."""


class DependentTableError(LedgerError):
    """The table cannot be mended alone: another refers to it or is referred to."""


class Rebuilt(msgspec.Struct):
    """What a rebuild did: rows written and removed by table, at which position; balances only where they were wrong.

    `not_compared` says why balances could not be compared, where they could not.
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
) -> Rebuilt:
    """Write what differs from the log, in one transaction.

    Args:
        tables: names of the read models to mend.
        begin: called with the number of events once it is known.

    Raises:
        RebuildRunningError: only one may run at a time.
        DependentTableError: a foreign key binds a table to one that was not named; nothing was changed.
        ReplayError: an event cannot be folded; nothing was changed.
    """
    models = tuple(model for model in REFERENCED_FIRST if model.name in tables)
    async with database.connection() as connection:
        if not await connection.fetchval(TRY_LOCK):
            raise RebuildRunningError("another rebuild is at work on this database; wait until it has ended")
        replay = Replay(database, connection, TEMPORARY, progress)
        begin(await read_head(connection))
        await replay.create_tables()
        await catch_up(connection, replay)
        async with connection.transaction(isolation="repeatable_read"):
            standing = await checkpoint.read_checkpoint_status(connection)
            await replay.advance(min(standing.position, await read_head(connection)))
            await connection.execute(COMPARING)
            await differences.note_differing(connection, models)
        async with connection.transaction():
            rebuilt = await _merge(connection, replay, models)
        if models == REFERENCED_FIRST:
            try:
                rebuilt.written |= await _mend_balances(connection, replay)
            except ReplayError as error:
                rebuilt.not_compared = error.detail
        # With the connection go its lock and its temporary tables.
        await connection.close()
    # A worker that had given up tries again.
    await notify_other_processes(database)
    return rebuilt


async def _merge(connection: Connection, replay: Replay, models: Sequence[ReadModel[Any]]) -> Rebuilt:
    await connection.execute(TIMEOUTS)
    position = await connection.fetchval(checkpoint.LOCK)
    touched: set[Touched] = set()
    await replay.advance(min(position, await read_head(connection)), touched)
    await connection.execute(NOTE_TOUCHED.format(schema=TEMPORARY), *_columns(touched, models))
    written, removed = {}, {}
    await _require_unbound(connection, models)
    for model in models:
        try:
            written[model.name] = _count(await connection.execute(_merge_statement(model)))
        except asyncpg.ForeignKeyViolationError as error:
            raise DependentTableError(f"{model.name} cannot be mended alone: {error.detail} {ALL_FOUR}") from error
    # Rows that refer to what goes have been mended by now.
    for model in reversed(models):
        removed[model.name] = _count(await connection.execute(REMOVE.format(schema=TEMPORARY, table=model.name)))
    # Where it stood unless that was past the log's end, and what stopped the worker may be mended.
    await connection.execute(checkpoint.MOVE, replay.position)
    return Rebuilt(replay.position, written, removed, replay.skipped)


async def _require_unbound(connection: Connection, models: Sequence[ReadModel[Any]]) -> None:
    """Refuse to take rows away that others refer to: these would be changed, or even taken away, with them."""
    for other in (model for model in REFERENCED_FIRST if model not in models):
        for column, target, _ in other.references:
            bound = BOUND.format(schema=TEMPORARY, table=target.name, other=other.name, column=column)
            if target in models and await connection.fetchval(bound):
                raise DependentTableError(
                    f"{target.name} cannot be mended alone: rows of {other.name} refer to rows that must go. {ALL_FOUR}"
                )


async def _mend_balances(connection: Connection, replay: Replay) -> dict[str, int]:
    async with connection.transaction(isolation="repeatable_read"):
        await replay.advance(await read_head(connection))
        await connection.execute(COMPARING)
        wrong = [
            difference.table async for difference in decision_state.compare_with_replay(connection, replay.left_out)
        ]
    if not wrong:
        return {}
    async with connection.transaction():
        await connection.execute(TIMEOUTS)
        await replay.advance(await connection.fetchval(LOCK_HEAD))
        await connection.execute(COMPARING)
        return await decision_state.mend(connection, replay.left_out)


def _columns(touched: set[Touched], models: Sequence[ReadModel[Any]]) -> tuple[list[str], list[object]]:
    tables = {model.name for model in models}
    rows = [row for row in touched if row.table in tables]
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
