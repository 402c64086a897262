"""Compare the journals (`cost_postings`, `denied_holds`) with a replay, and correct them."""

from collections.abc import AsyncIterator
from functools import cache

from ledger.database import Connection
from projections.differences import Difference, read_differences
from projections.journals import JOURNALS, Journal
from projections.replay import TEMPORARY

CREATE_DIFFERING = "CREATE TEMPORARY TABLE differing_positions (position bigint PRIMARY KEY)"

COLLECT = """
INSERT INTO {schema}.differing_positions
SELECT coalesce(live.position, replayed.position) FROM {joined} WHERE {differs} ON CONFLICT DO NOTHING
"""
COLLECT_LATER = """
INSERT INTO {schema}.differing_positions
SELECT position FROM public.{table} WHERE position > $1 UNION SELECT position FROM {schema}.{table} WHERE position > $1
ON CONFLICT DO NOTHING
"""

WRITE = """
INSERT INTO public.{table} AS live ({columns})
SELECT {columns} FROM {schema}.{table} JOIN {schema}.differing_positions USING (position)
ON CONFLICT (position) DO UPDATE SET {changes} WHERE ({live}) IS DISTINCT FROM ({sent})
"""

REMOVE = """
DELETE FROM public.{table} AS live USING {schema}.differing_positions AS differing
WHERE differing.position = live.position
    AND NOT EXISTS (SELECT FROM {schema}.{table} AS replayed WHERE replayed.position = live.position)
"""


def _row(journal: Journal, alias: str) -> str:
    return ", ".join(f"{alias}.{column}" for column in journal.columns)


def _joined(journal: Journal) -> str:
    return (
        f"public.{journal.name} AS live FULL JOIN {TEMPORARY}.{journal.name} AS replayed "
        "ON replayed.position = live.position"
    )


def _differs(journal: Journal) -> str:
    return f"({_row(journal, 'live')}) IS DISTINCT FROM ({_row(journal, 'replayed')})"


@cache
def _cells(journal: Journal) -> str:
    """Return SQL for every cell that differs, and once `row` for a row that only one side has."""
    cells = [
        "('row', CASE WHEN live.position IS NULL THEN 'missing' ELSE 'present' END,"
        " CASE WHEN replayed.position IS NULL THEN 'missing' ELSE 'present' END,"
        " live.position IS NULL OR replayed.position IS NULL)"
    ]
    cells += [
        f"('{column}', live.{column}::text, replayed.{column}::text,"
        f" live.position = replayed.position AND live.{column} IS DISTINCT FROM replayed.{column})"
        for column in journal.columns
    ]
    return f"""
        SELECT coalesce(live.position, replayed.position)::text AS id, cell.name, cell.live, cell.replayed
        FROM {_joined(journal)}, LATERAL (VALUES {", ".join(cells)}) AS cell (name, live, replayed, differs)
        WHERE {_differs(journal)} AND cell.differs
    """  # noqa: S608 (fixed names)


async def compare_journals(connection: Connection) -> AsyncIterator[Difference]:
    """Yield every difference between the journals and a temporary replay, inside the caller's snapshot.

    The id of a difference is the position of the event.
    """
    for journal in JOURNALS:
        async for difference in read_differences(connection, journal.name, _cells(journal)):
            yield difference


async def collect_differing_positions(connection: Connection) -> None:
    """Store the positions of rows that differ in a temporary table `differing_positions`, for `correct`."""
    await connection.execute(CREATE_DIFFERING)
    for journal in JOURNALS:
        statement = COLLECT.format(schema=TEMPORARY, joined=_joined(journal), differs=_differs(journal))
        await connection.execute(statement)


async def correct(connection: Connection, journal: Journal, compared: int) -> tuple[int, int]:
    """Write the rows of the replay in place of those that differ.

    Args:
        connection: in the transaction that has locked the checkpoint; the replay is at the same position.
        journal: the journal to correct.
        compared: the position up to which rows that differ are known; every later row is compared now.

    Returns:
        the numbers of rows written and removed.
    """
    await connection.execute(COLLECT_LATER.format(schema=TEMPORARY, table=journal.name), compared)
    write = WRITE.format(
        schema=TEMPORARY,
        table=journal.name,
        columns=", ".join(journal.columns),
        changes=", ".join(f"{column} = excluded.{column}" for column in journal.columns if column != "position"),
        live=_row(journal, "live"),
        sent=_row(journal, "excluded"),
    )
    written = await connection.execute(write)
    removed = await connection.execute(REMOVE.format(schema=TEMPORARY, table=journal.name))
    return _count(written), _count(removed)


def _count(status: str) -> int:
    return int(status.rpartition(" ")[2])
